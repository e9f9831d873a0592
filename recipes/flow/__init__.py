"""The recipe of the model `flow`: a rectified flow that draws avatars from noise and a caption, in four steps."""
