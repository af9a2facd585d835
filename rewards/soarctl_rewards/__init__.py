"""The rewards that come with soarctl: grounded (SOAR's) and learnability (the intrinsic comparison)."""
