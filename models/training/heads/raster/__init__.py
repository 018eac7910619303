"""From points in space to a buffer of samples: projections, triangles, strands."""
