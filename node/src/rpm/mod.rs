//! A repository for dnf made of what the store holds: RPM packages written again from their
//! manifests, and the metadata of rpm-md (`repodata/`), which `createrepo_c` makes elsewhere.
//!
//! Nothing here opens a file, reads a clock or asks for randomness, and the same releases give the
//! same bytes on every host. The header of a package is the maintainer's, but for what it says of
//! the payload, which is compressed anew; so signatures of the original package are gone, and the
//! metadata are signed by this host instead.

mod check;
mod cpio;
mod package;
#[cfg(test)]
mod package_tests;
mod repodata;
mod xml;

pub use check::{check, check_name};
pub use package::{FORMAT, RpmError, header_of, write_rpm};
pub use repodata::{Indexed, Metadata, metadata, repo_file};
