"""A GAN, a VAE and a hierarchical VAE of handwritten digits, from the 1,797 pictures in scikit-learn."""
