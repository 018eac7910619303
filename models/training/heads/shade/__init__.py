"""From samples to colours: light at vertices and strands, materials, tone curve."""
