"""What commands and the API return: plain objects with a text, an HTML and a JSON form."""
