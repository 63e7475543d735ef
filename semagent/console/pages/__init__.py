"""Pages beside the live one; each module here brings its routes."""
