"""Tables, figures and facts of git and DVC behind reports and pages."""
