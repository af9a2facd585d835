"""The paper's comparison: arms x seeds, trained and measured alike, from one spec."""
