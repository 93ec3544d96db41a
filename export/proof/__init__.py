"""What a bundle loses against its reference, measured in use: heads, engines, codes, voice."""
