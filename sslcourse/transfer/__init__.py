"""What a pretrained backbone is for: few labels, dense tasks, no labels at all."""
