"""The model: a masked-autoencoder transformer with experts, and heads for blur and restoration."""
