//! The tables, and how a database file is recognised, created, migrated and opened.
//!
//! Owns: the format number, every pragma, the lock file. Must not: read or write changes.
//! Next: `read.rs`, `fold.rs`; docs/store.md, "Tables" and "Migrations".

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, ffi};
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::id::ReplicaId;

use crate::error::StoreError;
use crate::ground::Ground;
use crate::{authored, life, record, reindex};

/// "SynL" in the file's header, so that `file` and other tools can tell whose database it is.
pub(crate) const APPLICATION_ID: u32 = 0x5379_6e4c;

/// The format that this version writes: the number of migrations.
pub(crate) const FORMAT: u32 = MIGRATIONS.len() as u32;

/// Migration n leads from format n to format n + 1. A released one is never edited.
const MIGRATIONS: [&str; 9] = [
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE log (seq INTEGER PRIMARY KEY, document BLOB NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE document (
        key INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        heads BLOB NOT NULL,
        changes INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        last_stamp INTEGER NOT NULL,
        snapshot_changes INTEGER NOT NULL DEFAULT 0,
        snapshot_bytes INTEGER NOT NULL DEFAULT 0,
        tail_bytes INTEGER NOT NULL,
        refused_changes INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE tail (place INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
    CREATE TABLE node_index (place INTEGER PRIMARY KEY, stamps BLOB NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE snapshot (document INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
    INSERT INTO meta VALUES ('replica', randomblob(16)), ('highest_stamp', zeroblob(8));
",
    // Kind 1 is a document chunk in the place of raw changes.
    "
    ALTER TABLE log ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE damaged (
        document BLOB NOT NULL,
        number INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (document, number)
    ) STRICT, WITHOUT ROWID;
",
    // The records of an index tell what operations are: `reindex` writes them anew.
    "",
    "
    CREATE TABLE life (
        document BLOB PRIMARY KEY,
        stamp INTEGER NOT NULL,
        replica BLOB NOT NULL,
        deleted INTEGER NOT NULL,
        noted_ms INTEGER NOT NULL,
        purged INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX life_due ON life (noted_ms) WHERE deleted = 1 AND purged = 0;
    CREATE TABLE purge (key INTEGER PRIMARY KEY, proof BLOB NOT NULL) STRICT;
    CREATE TABLE floor (document BLOB PRIMARY KEY, seq INTEGER NOT NULL, proof BLOB NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE policy (
        document BLOB PRIMARY KEY,
        pinned INTEGER NOT NULL,
        local_only INTEGER NOT NULL,
        proof BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE server (key INTEGER PRIMARY KEY, storage TEXT NOT NULL UNIQUE, used INTEGER NOT NULL) STRICT;
    CREATE TABLE in_step (
        server INTEGER NOT NULL,
        document BLOB NOT NULL,
        heads INTEGER NOT NULL,
        PRIMARY KEY (server, document)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE life ADD COLUMN noted INTEGER NOT NULL DEFAULT 0;
",
    "
    CREATE TABLE blob (
        key INTEGER PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        held INTEGER NOT NULL,
        state INTEGER NOT NULL,
        confirmed INTEGER NOT NULL,
        touched_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX blob_partial ON blob (touched_ms) WHERE state = 0;
    CREATE TABLE blob_piece (place INTEGER PRIMARY KEY, digest BLOB NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE blob_gone (key INTEGER PRIMARY KEY, proof BLOB NOT NULL) STRICT;
",
    // `life` proves the entries that are there.
    "ALTER TABLE life ADD COLUMN proof BLOB NOT NULL DEFAULT x'';",
    // `authored` reads the times of the documents that are there.
    "ALTER TABLE document ADD COLUMN authored INTEGER NOT NULL DEFAULT 0;",
    "
    CREATE TABLE actor (actor BLOB PRIMARY KEY, subject TEXT NOT NULL, proof BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE share (
        subject TEXT NOT NULL,
        document BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        proof BLOB NOT NULL,
        PRIMARY KEY (subject, document)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX share_of_document ON share (document);
",
];

/// The first format in which a log row has a kind, and damaged rows a table of their own.
const FORMAT_WITH_KINDS: u32 = 2;

/// The first format whose index records tell what operations are.
const FORMAT_WITH_OPERATIONS: u32 = 3;

/// The first format in which documents can be deleted.
const FORMAT_WITH_LIFE: u32 = 4;

/// The first format that knows which documents are pinned or stay on the machine.
const FORMAT_WITH_SELECTION: u32 = 5;

/// The first format with blobs.
const FORMAT_WITH_BLOBS: u32 = 6;

/// The first format whose life records carry a proof.
const FORMAT_WITH_LIFE_PROOF: u32 = 7;

/// The first format that knows when documents were last written to.
const FORMAT_WITH_AUTHORED: u32 = 8;

/// The first format that knows whose actors are, and who has stored how much.
const FORMAT_WITH_SUBJECTS: u32 = 9;

/// The oldest SQLite whose write-ahead log cannot be reset while another connection still needs it.
const SQLITE_OLDEST: i32 = 3_051_003;

/// Memory for pages that one connection keeps, KiB.
const CACHE_KIB: i32 = 8 * 1024;

/// Bits of a place that number the change within its document; the bits above are the document's key.
const NUMBER_BITS: u32 = 28;

/// Most changes that one document can have in this format.
pub(crate) const CHANGES_MAX: u32 = 1 << NUMBER_BITS;

/// Numbers of log rows beyond this are damage: a billion commits a second do not reach it in a century. A row behind it
/// would leave the next commits no number.
pub(crate) const LOG_SEQ_MAX: i64 = i64::MAX / 2;

/// Short name of a document within one file, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DocumentKey(pub i64);

impl DocumentKey {
    /// Where a piece that begins with this change of the document lies.
    pub(crate) fn place(self, change: u32) -> i64 {
        (self.0 << NUMBER_BITS) | i64::from(change)
    }

    /// The last place that can belong to the document.
    pub(crate) fn last_place(self) -> i64 {
        self.place(CHANGES_MAX - 1)
    }
}

/// The number of the first change of the piece at this place.
pub(crate) fn change_at(place: i64) -> u32 {
    (place & i64::from(CHANGES_MAX - 1)) as u32
}

/// The key of the document that the piece at this place belongs to.
pub(crate) fn document_at(place: i64) -> DocumentKey {
    DocumentKey(place >> NUMBER_BITS)
}

/// A document's row: everything that is known of it without reading changes.
#[derive(Debug, Clone)]
pub(crate) struct DocumentRow {
    pub key: DocumentKey,
    pub heads: Vec<ChangeHash>,
    pub changes: u32,
    pub bytes: u64,
    pub last_stamp: Stamp,
    pub snapshot_changes: u32,
    pub snapshot_bytes: u64,
    pub tail_bytes: u64,
    pub refused_changes: u32,
    pub authored: Authored,
}

impl DocumentRow {
    /// The columns in the order in which [`DocumentRow::from_row`] reads them.
    pub(crate) const COLUMNS: &str = "key, heads, changes, bytes, last_stamp, snapshot_changes, snapshot_bytes, tail_bytes, refused_changes, authored";

    /// The same where the file does not know when documents were written to.
    pub(crate) const OLD_COLUMNS: &str =
        "key, heads, changes, bytes, last_stamp, snapshot_changes, snapshot_bytes, tail_bytes, refused_changes, 0";

    pub(crate) const COLUMN_COUNT: usize = 10;

    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let heads = row.get_ref(1)?.as_blob()?;
        let heads = record::decode_heads(heads)
            .ok_or_else(|| rusqlite::Error::InvalidColumnType(1, "heads".to_owned(), rusqlite::types::Type::Blob))?;
        Ok(Self {
            key: DocumentKey(row.get(0)?),
            heads,
            changes: row.get(2)?,
            bytes: row.get(3)?,
            last_stamp: Stamp::from_u64(row.get::<_, i64>(4)?.cast_unsigned()),
            snapshot_changes: row.get(5)?,
            snapshot_bytes: row.get(6)?,
            tail_bytes: row.get(7)?,
            refused_changes: row.get(8)?,
            authored: Authored::at(row.get(9)?),
        })
    }

    /// The row of the document with this id.
    pub(crate) fn find(connection: &Connection, id: &[u8]) -> rusqlite::Result<Option<Self>> {
        const SQL: &str = "SELECT key, heads, changes, bytes, last_stamp, snapshot_changes, snapshot_bytes, tail_bytes, \
                           refused_changes, authored FROM document WHERE id = ?1";
        connection.prepare_cached(SQL)?.query_row([id], Self::from_row).optional()
    }
}

/// Where a store's files lie, and the lock that keeps others out while this value lives.
pub(crate) struct Home {
    directory: PathBuf,
    ground: Arc<dyn Ground>,
    _lock: Box<dyn Any + Send + Sync>,
}

/// The database file, and what it stands on.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    ground: Arc<dyn Ground>,
}

impl Home {
    /// Makes the directory if need be and locks it.
    pub(crate) fn enter(directory: &Path, ground: Arc<dyn Ground>) -> Result<Self, StoreError> {
        ground.make_directory(directory).map_err(|error| io_error(directory, error))?;
        let path = directory.join("syncline.lock");
        let lock = match ground.lock(&path) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: directory.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(io_error(&path, error)),
        };
        let home = Self { directory: directory.to_owned(), ground, _lock: lock };
        // Whoever made the directory may have died before its name was durable: until there is a database, sync it.
        if !home.ground.exists(&database_in(directory)) {
            home.sync_own_name()?;
        }
        Ok(home)
    }

    fn sync_own_name(&self) -> Result<(), StoreError> {
        let Some(parent) = self.directory.parent() else { return Ok(()) };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match sync_directory(&*self.ground, parent) {
            // Somebody else made the directory in a place that we may not read, and answers for its name.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    /// The database file.
    pub(crate) fn database(&self) -> Database {
        Database { path: database_in(&self.directory), ground: Arc::clone(&self.ground) }
    }

    /// Opens the writing connection: recognises, creates or migrates the file first.
    pub(crate) fn open_writer(&self, durable: bool, pages_max: Option<u32>) -> Result<Connection, StoreError> {
        check_sqlite_version()?;
        let database = self.database();
        let Database { path, ground } = &database;
        recognise(path, &**ground)?;
        let connection = database.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        // Closing must not move the log into a file that another version wrote, nor sync again what failed to sync.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let found = format_of(&connection, path)?;
        renew_log(path, &**ground)?;
        switch_to_write_ahead_log(&connection, path)?;
        configure(&connection)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
        if let Some(pages) = pages_max {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        if found > 0 {
            refuse_strange_tables(&connection, found)?;
        }
        migrate(&connection, found, ground.replica())?;
        sync_directory(&**ground, &self.directory)?;
        Ok(connection)
    }
}

impl Database {
    fn open(&self, access: OpenFlags) -> Result<Connection, StoreError> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = match self.ground.vfs() {
            None => Connection::open_with_flags(&self.path, flags),
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.path, flags, vfs),
        };
        connection.map_err(|error| as_open_error(error, &self.path))
    }
}

/// Opens a connection that can only read.
pub(crate) fn open_reader(database: &Database) -> Result<Connection, StoreError> {
    let connection = database.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    configure(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens the connection that only moves the write-ahead log into the database.
pub(crate) fn open_checkpointer(database: &Database) -> Result<Connection, StoreError> {
    let connection = database.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    configure(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// A store's file as the check reads it.
pub(crate) struct Checked {
    pub connection: Connection,
    format: u32,
    /// The query for all rows that the log holds or held: document, kind, data, and whether the row was set aside.
    pub log: &'static str,
    /// The records of indexes do not tell what operations are.
    pub old_index: bool,
    /// Documents can be deleted in it.
    pub has_life: bool,
    /// Records of that carry a proof.
    pub proves_life: bool,
    /// It says which documents are pinned or stay on the machine.
    pub has_selection: bool,
    /// Blobs can be stored in it.
    pub has_blobs: bool,
    /// It knows when documents were last written to.
    pub has_authored: bool,
    /// It knows whose actors are, and who has stored how much.
    pub has_subjects: bool,
}

impl Checked {
    /// As the function of this name.
    pub(crate) fn strange_tables(&self) -> rusqlite::Result<Vec<String>> {
        strange_tables(&self.connection, self.format)
    }
}

/// Tables and indexes that are not as the file's format makes them. A query hears of a damaged name only if it needs it.
/// Others may have tables of their own beside them.
fn strange_tables(connection: &Connection, format: u32) -> rusqlite::Result<Vec<String>> {
    let found = columns(connection)?;
    let strange: BTreeSet<&String> = made_columns(format)?.difference(&found).map(|(name, _)| name).collect();
    Ok(strange.into_iter().cloned().collect())
}

/// The columns that a format makes, worked out once. There is no format 0: such a file is empty.
fn made_columns(format: u32) -> rusqlite::Result<&'static Columns> {
    static OF_FORMATS: [OnceLock<Columns>; MIGRATIONS.len()] = [const { OnceLock::new() }; MIGRATIONS.len()];
    let migrations = &MIGRATIONS[..format as usize];
    let known = &OF_FORMATS[migrations.len() - 1];
    if let Some(columns) = known.get() {
        return Ok(columns);
    }
    let fresh = Connection::open_in_memory()?;
    fresh.execute_batch(&migrations.concat())?;
    let columns = columns(&fresh)?;
    Ok(known.get_or_init(|| columns))
}

/// A name that was damaged shows in whichever query needs it first, as a mistake in the query, which a writer would take
/// for a failed disk. So nothing is committed to such a file.
fn refuse_strange_tables(connection: &Connection, format: u32) -> Result<(), StoreError> {
    let strange = strange_tables(connection, format)?;
    if strange.is_empty() {
        return Ok(());
    }
    let words = format!("not as it was made: {}", strange.join(", "));
    let source = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(words));
    Err(StoreError::Corrupt { source: Arc::new(source) })
}

/// The columns of tables and indexes, each with the name of what it is in and all that a query can see of it.
type Columns = BTreeSet<(String, String)>;

/// The columns of every table and index. How SQLite words a table that it has altered is its own affair, and may change.
fn columns(connection: &Connection) -> rusqlite::Result<Columns> {
    const SQL: &str = "
        SELECT t.name, format('%d %d %d %s %s %d %s %d', wr, strict, cid, c.name, c.type, \"notnull\", dflt_value, pk)
            FROM pragma_table_list AS t, pragma_table_xinfo(t.name) AS c WHERE t.schema = 'main'
        UNION ALL
        SELECT i.name, format('%s %d %d %d %s %d %s', t.name, \"unique\", partial, seqno, c.name, \"desc\", coll)
            FROM pragma_table_list AS t, pragma_index_list(t.name) AS i, pragma_index_xinfo(i.name) AS c
            WHERE t.schema = 'main'";
    let mut statement = connection.prepare(SQL)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Opens a store's file for the check: refuses what is not ours, writes nothing.
pub(crate) fn open_for_check(directory: &Path, ground: Arc<dyn Ground>) -> Result<Checked, StoreError> {
    open_file_for_check(&database_in(directory), ground)
}

/// As [`open_for_check`], of a file of any name.
pub(crate) fn open_file_for_check(file: &Path, ground: Arc<dyn Ground>) -> Result<Checked, StoreError> {
    check_sqlite_version()?;
    let database = Database { path: file.to_owned(), ground };
    let path = &database.path;
    if !database.ground.exists(path) {
        return Err(io_error(path, ErrorKind::NotFound.into()));
    }
    recognise(path, &*database.ground)?;
    let connection = open_reader(&database)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let format = format_of(&connection, path)?;
    let log = match format {
        0 => return Err(StoreError::NotAStore { path: path.clone(), reason: "the database is empty" }),
        1..FORMAT_WITH_KINDS => "SELECT document, 0, data, 0 FROM log ORDER BY seq",
        FORMAT_WITH_KINDS..FORMAT_WITH_LIFE => {
            "SELECT document, kind, data, 1 FROM damaged \
             UNION ALL SELECT * FROM (SELECT document, kind, data, 0 FROM log ORDER BY seq)"
        }
        _ => {
            "SELECT document, kind, data, 1 FROM damaged \
             UNION ALL SELECT * FROM (SELECT document, kind, data, 0 FROM log WHERE NOT EXISTS \
             (SELECT 1 FROM floor WHERE floor.document = log.document AND log.seq <= floor.seq) ORDER BY seq)"
        }
    };
    let (old_index, has_life) = (format < FORMAT_WITH_OPERATIONS, format >= FORMAT_WITH_LIFE);
    let (has_selection, has_blobs) = (format >= FORMAT_WITH_SELECTION, format >= FORMAT_WITH_BLOBS);
    let proves_life = format >= FORMAT_WITH_LIFE_PROOF;
    let has_authored = format >= FORMAT_WITH_AUTHORED;
    let has_subjects = format >= FORMAT_WITH_SUBJECTS;
    Ok(Checked {
        connection,
        format,
        log,
        old_index,
        has_life,
        proves_life,
        has_selection,
        has_blobs,
        has_authored,
        has_subjects,
    })
}

/// The replica id that was drawn when the file was created.
pub(crate) fn replica_id(connection: &Connection) -> Result<ReplicaId, StoreError> {
    meta(connection, "replica").map(|bytes| ReplicaId(uuid_version_4(bytes)))
}

/// The highest stamp that was known when the log was last folded or the store closed.
pub(crate) fn highest_stamp(connection: &Connection) -> Result<Stamp, StoreError> {
    meta(connection, "highest_stamp").map(|bytes| Stamp::from_u64(u64::from_be_bytes(bytes)))
}

/// What the file says of itself under this name. Without it nothing can be committed: another replica id or an older
/// stamp would contradict what peers have seen.
fn meta<const N: usize>(connection: &Connection, name: &str) -> Result<[u8; N], StoreError> {
    let value = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
    value.map_err(|error| {
        let unusable =
            matches!(error, rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::FromSqlConversionFailure(..));
        if unusable { StoreError::Corrupt { source: Arc::new(error) } } else { StoreError::from_read(error) }
    })
}

pub(crate) fn write_highest_stamp(connection: &Connection, stamp: Stamp) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'highest_stamp'")?;
    statement.execute([stamp.as_u64().to_be_bytes()]).map(|_| ())
}

pub(crate) fn database_in(directory: &Path) -> PathBuf {
    directory.join("syncline.db")
}

/// The file that SQLite keeps beside the database under this suffix.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // A failed read of a mapped file is a signal that ends the process; a failed call is an error.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn check_sqlite_version() -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_OLDEST {
        return Err(StoreError::SqliteTooOld { found: rusqlite::version() });
    }
    Ok(())
}

/// Switches to a write-ahead log, on which everything that is promised here rests.
///
/// SQLite first says which journal it has and then commits the switch: whoever stops at the row never hears that the
/// commit failed, and goes on without the log.
fn switch_to_write_ahead_log(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mut mode = String::new();
    while let Some(row) = rows.next()? {
        mode = row.get(0)?;
    }
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(io_error(path, std::io::Error::other(format!("SQLite stays with the journal mode {mode}"))))
}

/// Makes durable what the write-ahead log shows, by writing and syncing the same bytes again.
///
/// A process that died may have written to it without a sync, or with one that failed, after which the system goes on
/// showing pages that the disk never got and syncs them no more. SQLite takes for committed whatever it reads there, and
/// what is committed may be shown to peers.
fn renew_log(database: &Path, ground: &dyn Ground) -> Result<(), StoreError> {
    let path = beside(database, "-wal");
    match ground.renew(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(&path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reads the file's header without SQLite, which would already touch the files beside it.
fn recognise(path: &Path, ground: &dyn Ground) -> Result<(), StoreError> {
    let mut header = [0u8; 100];
    let refused = |reason| Err(StoreError::NotAStore { path: path.to_owned(), reason });
    match ground.read_start(path, &mut header) {
        Ok(0) => return Ok(()),
        Ok(read) if read < header.len() => return refused("it is too short for a database"),
        Ok(_) if header.starts_with(b"SQLite format 3\0") => {}
        // A power cut tore the very first page; SQLite takes it back with the journal that it wrote before.
        Ok(_) if header.iter().all(|byte| *byte == 0) && ground.exists(&beside(path, "-journal")) => return Ok(()),
        Ok(_) => return refused("it is no SQLite database"),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path, error)),
    }
    let field = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (format, application) = (field(60), field(68));
    accept(path, application, format)
}

/// The format as SQLite sees it, with what is still in the write-ahead log; 0 for an empty file.
fn format_of(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let read = || Ok((pragma("application_id")?, pragma("user_version")?));
    let (application, format) = read().map_err(|error| as_open_error(error, path))?;
    accept(path, application, format)?;
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, u32>(0));
    let tables = tables.map_err(|error| as_open_error(error, path))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(StoreError::NotAStore { path: path.to_owned(), reason: "another application's database" });
    }
    Ok(format)
}

fn accept(path: &Path, application: u32, format: u32) -> Result<(), StoreError> {
    // A creation that was cut short leaves a file with neither number.
    if application != APPLICATION_ID && (application, format) != (0, 0) {
        return Err(StoreError::NotAStore { path: path.to_owned(), reason: "another application's database" });
    }
    if format > FORMAT {
        return Err(StoreError::NewerFormat { path: path.to_owned(), found: format, supported: FORMAT });
    }
    Ok(())
}

/// Leads the file to the current format in one transaction, and moves that into the main file, so that an older
/// version sees the new number in the header.
fn migrate(connection: &Connection, found: u32, replica: Option<ReplicaId>) -> Result<(), StoreError> {
    if found == FORMAT {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    transaction.execute_batch(&MIGRATIONS[found as usize..].concat())?;
    if let Some(replica) = replica.filter(|_| found == 0) {
        transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'replica'", [&replica.0[..]])?;
    }
    if (1..FORMAT_WITH_OPERATIONS).contains(&found) {
        reindex::rewrite_all(&transaction)?;
    }
    if (FORMAT_WITH_LIFE..FORMAT_WITH_LIFE_PROOF).contains(&found) {
        life::prove_all(&transaction)?;
    }
    if (1..FORMAT_WITH_AUTHORED).contains(&found) {
        authored::read_all(&transaction)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

fn as_open_error(error: rusqlite::Error, path: &Path) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => {
            StoreError::NotAStore { path: path.to_owned(), reason: "it is no SQLite database" }
        }
        _ => StoreError::from_read(error),
    }
}

/// Makes the names in a directory durable; a file whose name is lost is lost.
fn sync_directory(ground: &dyn Ground, directory: &Path) -> Result<(), StoreError> {
    ground.sync_directory(directory).map_err(|error| io_error(directory, error))
}

fn io_error(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source: Arc::new(source) }
}

fn uuid_version_4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::System;

    /// The system's files, but for one directory that cannot be synced.
    #[derive(Debug)]
    struct Unsyncable(PathBuf, ErrorKind);

    impl Ground for Unsyncable {
        fn wall_ms(&self) -> u64 {
            System.wall_ms()
        }

        fn make_directory(&self, directory: &Path) -> std::io::Result<()> {
            System.make_directory(directory)
        }

        fn lock(&self, path: &Path) -> Result<Box<dyn Any + Send + Sync>, TryLockError> {
            System.lock(path)
        }

        fn exists(&self, path: &Path) -> bool {
            System.exists(path)
        }

        fn read_start(&self, path: &Path, bytes: &mut [u8]) -> std::io::Result<usize> {
            System.read_start(path, bytes)
        }

        fn renew(&self, path: &Path) -> std::io::Result<()> {
            System.renew(path)
        }

        fn sync_directory(&self, directory: &Path) -> std::io::Result<()> {
            if directory == self.0 { Err(self.1.into()) } else { System.sync_directory(directory) }
        }
    }

    fn pragma(connection: &Connection, name: &str) -> i64 {
        connection.pragma_query_value(None, name, |row| row.get(0)).expect("a number")
    }

    // NORMAL loses acknowledged commits in a power cut; a file may name functions and views that a reader would run.
    #[test]
    fn commits_wait_for_the_disk_and_the_file_is_not_trusted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = Home::enter(directory.path(), Arc::new(System)).expect("nobody else is in it");
        let writer = home.open_writer(true, None).expect("a new file");
        const FULL: i64 = 2;
        assert_eq!(pragma(&writer, "synchronous"), FULL);
        let checkpointer = open_checkpointer(&home.database()).expect("the file is there");
        assert_eq!(pragma(&checkpointer, "synchronous"), FULL);
        let reader = open_reader(&home.database()).expect("the file is there");
        assert!(reader.execute("DELETE FROM meta", []).is_err(), "a reader only reads");
        for connection in [writer, checkpointer, reader] {
            assert_eq!(pragma(&connection, "trusted_schema"), 0);
            assert_eq!(connection.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE), Ok(true));
        }
    }

    #[test]
    fn a_parent_that_may_not_be_read_is_passed_over_and_one_that_fails_is_not() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let enter = |name: &str, kind| {
            let ground = Unsyncable(parent.path().to_owned(), kind);
            Home::enter(&parent.path().join(name), Arc::new(ground)).map(drop)
        };
        assert!(enter("forbidden", ErrorKind::PermissionDenied).is_ok());
        let failed = enter("broken", ErrorKind::StorageFull);
        assert!(matches!(&failed, Err(StoreError::Io { path, .. }) if path == parent.path()), "{failed:?}");
    }
}
