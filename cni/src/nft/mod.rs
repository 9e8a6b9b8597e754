//! nf_tables without the `nft` program: an encoder of what our one table
//! needs, and the batch that changes it atomically.

mod batch;
pub mod conntrack;
mod expr;
mod message;
mod socket;
#[allow(missing_docs)]
pub mod uapi;

pub use batch::{Batch, Element, Hook, SetSpec};
pub use expr::{Expr, Rule, Side};
