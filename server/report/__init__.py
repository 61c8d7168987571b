"""`arena report`: a history comes in (history.py), figures and verdicts go out (document.py), and a page (page.py).

command.py is the command, suite.py the committed runs, plots.py the one file that knows matplotlib.
"""
