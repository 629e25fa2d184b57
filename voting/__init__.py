"""People's votes between two methods' images of one prompt and noise, blind until they are counted."""
