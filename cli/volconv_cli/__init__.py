"""The command line of volconv: the only place that knows click."""
