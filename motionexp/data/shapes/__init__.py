"""The bundled world: procedural videos of moving shapes with captions and ground truth."""
