"""A web page that searches an index: `app.create_app` makes it, the browser loads `static/`."""
