//! Every bound on what crosses the wire, with its unit and its reason.

/// Bytes of one control frame. A peer that announces more is closed (attack A25).
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// Bytes of a manifest with its packs that go together in one frame: it leaves a quarter of the
/// largest frame, and of an outbox room for five.
pub const SMALL_LEN_MAX: usize = 48 * 1024;
/// Bytes of one frame of the push protocol: a list of 4 096 live releases must fit.
pub const PUSH_FRAME_LEN_MAX: usize = 256 * 1024;
/// Bytes of one frame before the peer is admitted: a Hello with its certificate and record.
pub const UNADMITTED_FRAME_LEN_MAX: usize = 16 * 1024;
/// Bytes of a signed feed entry with its signatures: announcements go to every host.
pub const ENTRY_LEN_MAX: usize = 4 * 1024;
/// Bytes of a proof that two entries have one number: both, with all their signatures.
pub const PROOF_LEN_MAX: usize = 12 * 1024;
/// Bytes of a signed beacon with its signature.
pub const BEACON_LEN_MAX: usize = 1024;
/// Bytes of the body of a denial, suicide or withdrawal: signed, they are no longer than an entry.
pub const NARROW_LEN_MAX: usize = ENTRY_LEN_MAX - 256;
/// Bytes of the certificate of a delegated key with its signature: it stands inside of an entry.
pub const DELEGATED_LEN_MAX: usize = 400;
/// Seconds that a delegated key may be good for at the most: twelve hours, and what clocks differ.
pub const DELEGATED_VALID_MAX_S: u64 = 12 * 3_600 + CLOCK_SKEW_S;
/// Releases that one withdrawal recalls.
pub const RECALLED_MAX: usize = 64;
/// Seconds that a beacon may be good for at the most, whatever its key's holder says: a week.
pub const BEACON_VALID_MAX_S: u64 = 7 * 86_400;
/// Seconds that a group must let a beacon speak at the least: three times the shortest interval at
/// which a node makes beacons.
pub const GROUP_BEACON_MIN_S: u64 = 180;
/// Numbers of items from here on are times in seconds since 1970 (this one is in September 2001).
pub const MOMENTS_FROM: u64 = 1_000_000_000;
/// Bytes of a signed charter document with its signatures.
pub const DOC_LEN_MAX: usize = 32 * 1024;
/// Root documents in the answer to a join: a rotation each year for a lifetime.
pub const ROOTS_MAX: usize = 64;
/// Bytes of a host-signed peer record or certificate.
pub const RECORD_LEN_MAX: usize = 4 * 1024;
/// Signatures on one body: the largest role has 16 keys.
pub const SIGNATURES_MAX: usize = 16;
/// Bytes of a manifest: some 500 000 entries.
pub const MANIFEST_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Entries of one tree: larger trees belong into an image.
pub const TREE_ENTRIES_MAX: usize = 1_000_000;
/// Bytes of one path of a tree.
pub const PATH_LEN_MAX: usize = 1_024;
/// Bytes of one component of a path: `NAME_MAX` of Linux.
pub const COMPONENT_LEN_MAX: usize = 255;
/// Components of one path.
pub const PATH_DEPTH_MAX: usize = 64;
/// Unpacked bytes of one segment of a payload, so that a host holds at most one in memory.
pub const SEGMENT_LEN_MAX: u64 = 32 * 1024 * 1024;
/// Unpacked bytes of one release.
pub const UNPACKED_LEN_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Packs of one variant of a release: 64 GiB in segments of 32 MiB, with room for short ones.
pub const PACKS_MAX: usize = 4_096;
/// Pieces of one pack: 32 MiB and its growth in pieces of 64 KiB.
pub const PIECES_PER_PACK_MAX: usize = 1_024;
/// Smallest and largest piece, in bytes.
pub const PIECE_LEN_MIN: u32 = 64 * 1024;
/// Largest piece, in bytes: what a receiver holds before it can verify.
pub const PIECE_LEN_MAX: u32 = 4 * 1024 * 1024;
/// Base-two logarithm of the zstd window of a full pack (8 MiB) and
/// of a delta pack (64 MiB), against bombs that ask for memory.
pub const WINDOW_LOG_FULL: u32 = 23;
/// See [`WINDOW_LOG_FULL`].
pub const WINDOW_LOG_DELTA: u32 = 26;
/// Content ids of one delta prefix.
pub const PREFIX_RUNS_MAX: usize = 65_536;
/// Bytes of one delta prefix.
pub const PREFIX_LEN_MAX: u64 = 32 * 1024 * 1024;
/// Piece of a manifest, in bytes; see `BlobRef`.
pub const MANIFEST_PIECE_LEN: u64 = 1024 * 1024;
/// Direct dependencies of a release (attack A15).
pub const DEPENDS_MAX: usize = 64;
/// Names that a release provides beside its own: Debian's perl has 62.
pub const PROVIDES_MAX: usize = 128;
/// Groups that a release is for.
pub const RELEASE_GROUPS_MAX: usize = 32;
/// Releases of one publisher that are neither withdrawn nor retired.
pub const LIVE_RELEASES_MAX: usize = 4_096;
/// Releases that one entry retires: they fit, whatever their numbers.
pub const RETIRED_AT_ONCE: usize = 200;
/// Items in one IHAVE or a range that is asked for at once (attacks G8, G17).
pub const ITEMS_PER_FRAME_MAX: usize = 100;
/// Heads in one frame: 46 B each, so that a frame of 64 KiB holds them.
pub const HEADS_PER_FRAME_MAX: usize = 1_000;
/// Cells of a sketch in one frame: 24 B each, so that a frame of 64 KiB holds them.
pub const SKETCH_CELLS_MAX: usize = 2_048;
/// Logs (feeds and charter documents) of a fleet that a node keeps.
pub const LOGS_MAX: usize = 32_768;
/// Addresses in a peer record.
pub const ADDRS_MAX: usize = 4;
/// Peer records in one frame.
pub const HINTS_MAX: usize = 8;
/// Keys of private groups that one host or publisher keeps: old ones are needed for what was
/// announced with them.
pub const GROUP_KEYS_MAX: usize = 128;
/// Keys of private groups in one frame.
pub const KEYS_PER_FRAME_MAX: usize = 16;
/// Groups that a certificate or token names, and labels.
pub const GRANTS_MAX: usize = 64;
/// See [`GRANTS_MAX`].
pub const LABELS_MAX: usize = 16;
/// Groups in a peer record.
pub const SUBSCRIBED_GROUPS_MAX: usize = 128;
/// Groups that a summary of a cell names.
pub const CELL_GROUPS_MAX: usize = 128;
/// A clock that is ahead by up to this many seconds is tolerated.
pub const CLOCK_SKEW_S: u64 = 300;
/// Hops after which a gossip message is not passed on (attack G5).
pub const HOPS_MAX: u8 = 64;
/// Pieces of one swarm: 64 GiB in pieces of 4 MiB, with room for short last pieces of packs.
pub const PIECES_MAX: usize = 65_536;
/// Milliseconds that a grant may last at the most.
pub const GRANT_TTL_MS_MAX: u32 = 5_000;
