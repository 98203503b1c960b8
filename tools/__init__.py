"""What the repository needs to make itself: no part of the package, which never imports from here."""
