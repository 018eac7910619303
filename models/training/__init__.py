"""Training: data, the loop, what it writes. It knows no system; systems know it."""
