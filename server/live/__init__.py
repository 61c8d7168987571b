"""The path of an action, one file a stage: admission, recorder, journal, ticker, view, frames, hub."""
