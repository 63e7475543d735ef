"""Training: masked pretraining, fine-tuning of all heads, on one processor or many machines."""
