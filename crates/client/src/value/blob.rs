//! How a document refers to a blob.
//!
//! Owns: the fields and their names, which are the same for JavaScript. Must not: read or store content.
//! Next: `../blob.rs`; docs/blobs.md, "Address and reference".

use autosurgeon::reconcile::{LoadKey, MapReconciler, hydrate_key};
use autosurgeon::{Hydrate, HydrateError, Prop, ReadDoc, Reconcile, Reconciler, hydrate_prop};
use syncline_core::blob::BlobHash;

use super::{Integer, Text};

/// What comes before the address in a blob's URL.
const SCHEME: &str = "syncline-blob:";

/// A reference to a blob: an attachment, stored beside the documents and named by the hash of its content.
///
/// In a document it is a map with `url`, `size`, and where they are known `mediaType` and `name`, all plain to JavaScript. A
/// field that gets another blob gets a new map, so that two people who do it at once leave one of the two and no mixture.
///
/// ```
/// use syncline::value::Blob;
/// # let repo = syncline::Repo::memory()?;
/// let picture: Blob = syncline::block_on(repo.put_blob("…"))?.named("cat.png", "image/png");
/// assert_eq!(picture.http_path(), format!("/blobs/{}?type=image/png&name=cat.png", picture.hash()));
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Blob {
    hash: BlobHash,
    size: u64,
    /// What it is, as `image/png`, if the application says so.
    pub media_type: Option<String>,
    /// A name for people, if it has one.
    pub name: Option<String>,
}

impl Blob {
    /// A reference to the blob with this address and size.
    #[must_use]
    pub fn new(hash: BlobHash, size: u64) -> Self {
        Self { hash, size, media_type: None, name: None }
    }

    /// The same, with a name and a media type.
    #[must_use]
    pub fn named(self, name: &str, media_type: &str) -> Self {
        Self { media_type: Some(media_type.to_owned()), name: Some(name.to_owned()), ..self }
    }

    /// The blob's address: the SHA-256 of its content.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its URL, as documents have it: `syncline-blob:` and the address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{SCHEME}{}", self.hash)
    }

    /// Where a Syncline server has it, behind `http://host:port`.
    #[must_use]
    pub fn http_path(&self) -> String {
        let plain = |text: &str| {
            let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
            let part = |byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
            text.bytes().map(part).collect::<String>()
        };
        let fields = [("type", &self.media_type), ("name", &self.name)];
        let fields = fields.iter().filter_map(|(key, value)| Some(format!("{key}={}", plain(value.as_ref()?))));
        let query = fields.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/blobs/{}{mark}{query}", self.hash)
    }
}

impl Hydrate for Blob {
    fn hydrate_map<D: ReadDoc>(document: &D, object: &automerge::ObjId) -> Result<Self, HydrateError> {
        let url: Text = hydrate_prop(document, object, "url")?;
        let hash = url.strip_prefix(SCHEME).and_then(|address| address.parse().ok());
        let hash = hash.ok_or_else(|| HydrateError::unexpected("the URL of a blob", url.to_string()))?;
        let size: Integer = hydrate_prop(document, object, "size")?;
        let size = u64::try_from(size.get())
            .map_err(|_| HydrateError::unexpected("the size of a blob", size.get().to_string()))?;
        let text = |field: &'static str| {
            let found: Option<Option<Text>> = match document.get(object, field)? {
                Some(_) => Some(hydrate_prop(document, object, field)?),
                None => None,
            };
            Ok::<_, HydrateError>(found.flatten().map(|text| text.0))
        };
        Ok(Self { hash, size, media_type: text("mediaType")?, name: text("name")? })
    }
}

impl Reconcile for Blob {
    type Key<'a> = Text;

    fn reconcile<R: Reconciler>(&self, mut reconciler: R) -> Result<(), R::Error> {
        let mut map = reconciler.map()?;
        map.put("url", Text::from(self.url()))?;
        // A size is not above 2^53: no store holds as much.
        map.put("size", self.size.cast_signed())?;
        for (field, value) in [("mediaType", &self.media_type), ("name", &self.name)] {
            match value {
                Some(value) => map.put(field, Text::from(value.as_str()))?,
                None if map.entry(field).is_some() => map.delete(field)?,
                None => {}
            }
        }
        Ok(())
    }

    fn hydrate_key<'a, D: ReadDoc>(
        document: &D,
        object: &automerge::ObjId,
        prop: Prop<'_>,
    ) -> Result<LoadKey<Self::Key<'a>>, autosurgeon::ReconcileError> {
        hydrate_key::<_, Text>(document, object, prop, "url".into())
    }

    fn key(&self) -> LoadKey<Self::Key<'_>> {
        LoadKey::Found(Text::from(self.url()))
    }
}
