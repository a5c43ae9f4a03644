"""The pages for people: sign in, and what a link in a mail leads to. They are rendered on the server and need no JavaScript."""
