"""The torch ring: networks, frameworks, training and prediction."""
