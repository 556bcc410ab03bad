//! Many members of a mesh.
