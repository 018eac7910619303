from kernels_triton.styles.op import StyleLayer, StyleTable, style_scales

__all__ = ["StyleLayer", "StyleTable", "style_scales"]
