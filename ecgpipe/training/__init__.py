"""One training loop for pretraining and finetuning; run folders and model files."""
