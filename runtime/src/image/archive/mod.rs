//! Images from files: docker-archive and OCI layouts, packed or as a directory.
//!
//! `source`: named members of a tar file or of a directory. `describe`: which
//! images are in it; pure but for reading. `import`: their layers into the store.
//! `pack`: a layer's directory to a tar stream. `export`: an image to a file.
//! `dropped`: archives put into a directory.

mod describe;
mod dropped;
mod export;
mod import;
mod pack;
mod source;
#[cfg(test)]
mod tests;

pub use dropped::{Watch, watch};
pub use export::ExportError;
pub use import::ImportError;
