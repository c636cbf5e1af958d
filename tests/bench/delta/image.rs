//! Two versions of a sparse disk image, made for the purpose.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::noise;

/// Bytes of one run of data.
const RUN: usize = 1 << 20;

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Size of the image.
    #[arg(long, default_value_t = 4096)]
    mib: u64,
    /// Data in it, in runs of 1 MiB spread over the image; half of it compresses.
    #[arg(long, default_value_t = 1024)]
    data_mib: u64,
    /// Runs of which one is other data in the new version: one in so many.
    #[arg(long, default_value_t = 20)]
    one_in: u64,
}

/// Makes both versions and measures the update.
pub(crate) fn run(options: &Options) -> Result<Value> {
    let dir = tempfile::Builder::new().prefix("stork-image-").tempdir()?;
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    make(options, &old, 0)?;
    make(options, &new, options.one_in)?;
    super::run(&super::Options { old, new, alone: true })
}

/// `one_in`: which runs are other data; 0 for none.
fn make(options: &Options, folder: &Path, one_in: u64) -> Result<()> {
    std::fs::create_dir(folder)?;
    let file = File::create(folder.join("disk.img"))?;
    file.set_len(options.mib << 20)?;
    let step = (options.mib / options.data_mib.max(1)).max(1);
    for i in 0..options.data_mib.min(options.mib) {
        let changed = one_in > 0 && i % one_in == 0;
        let mut run = noise(RUN / 2, u8::from(changed));
        // The same noise, but of this place: no two runs have any piece of it in common.
        let key = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        run.iter_mut().zip(blake3_stream(&key, RUN / 2)).for_each(|(b, k)| *b ^= k);
        let text = format!("line {i} of a log that compresses well, with words in it\n");
        run.extend(text.bytes().cycle().take(RUN / 2));
        file.write_all_at(&run, (i * step) << 20)?;
    }
    file.sync_all()?;
    Ok(())
}

fn blake3_stream(key: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(key).finalize_xof().fill(&mut out);
    out
}
