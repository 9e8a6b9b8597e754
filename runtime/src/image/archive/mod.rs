//! Images from files: docker-archive and OCI layouts, packed or as a directory.
//!
//! `source`: named members of a tar file or of a directory. `describe`: which
//! images are in it; pure but for reading. `import`: their layers into the store.

mod describe;
mod import;
mod source;
#[cfg(test)]
mod tests;

pub use import::ImportError;
