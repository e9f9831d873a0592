"""A small dual encoder of pictures and captions, which learns from drawings of avatars and postcards."""
