"""One program for each number that is measured from outside; they print JSON rows for `arena bench`."""
