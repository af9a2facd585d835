"""Programming puzzles: any witness that the checker takes is right."""
