"""The math domain: real data, a verifier that neither lies nor hangs, prompts."""
