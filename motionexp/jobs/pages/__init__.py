"""What people look at in a browser: the report, the user study, and the page to try it on."""
