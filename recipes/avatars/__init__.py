"""The recipe of the packaged model `avatars`: drawings, generator, judge and attribute heads."""
