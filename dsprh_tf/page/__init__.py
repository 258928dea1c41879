"""The web page over an index: `app.create_app` makes it, `static/` is what the browser loads."""
