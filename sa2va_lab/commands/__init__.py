"""What `sa2va-lab` can do, a module a theme: parse, call, print. What a command does is in the rooms below."""
