//! A document as it is, or as it was at some heads.
//!
//! Owns: reading at heads, and where in the document a typed read went wrong.
//! Must not: copy the document. Next: `typed.rs`, `history.rs`.

use std::cell::RefCell;
use std::fmt::Write;
use std::ops::RangeBounds;

use automerge::iter::{ListRange, MapRange};
use automerge::{Automerge, AutomergeError, ChangeHash, ObjId, ObjType, Parents, Prop, ROOT, ReadDoc, Value, hydrate};

/// A document to read from, at this moment or at earlier heads. It costs nothing to make.
///
/// It is what [`Document::read_at`](crate::Document::read_at) hands out. Plain reads are here; for a struct there is
/// [`View::hydrate`], and with `autosurgeon` it reads like a document.
#[derive(Debug)]
pub struct View<'a, D: ReadDoc = Automerge> {
    document: &'a D,
    /// `None` for the document as it is.
    heads: Option<Vec<ChangeHash>>,
    /// The heads of the document as it is.
    latest: Vec<ChangeHash>,
    last: RefCell<Option<(ObjId, Prop)>>,
}

impl<'a, D: ReadDoc> View<'a, D> {
    /// The document as it is.
    pub(crate) fn now(document: &'a D, latest: Vec<ChangeHash>) -> Self {
        Self { document, heads: None, latest, last: RefCell::new(None) }
    }

    /// The document as it was at these heads, all of which it has.
    pub(crate) fn at(document: &'a D, heads: &[ChangeHash]) -> Self {
        Self { document, heads: Some(heads.to_vec()), latest: Vec::new(), last: RefCell::new(None) }
    }

    /// A struct with the document's fields.
    ///
    /// # Errors
    /// autosurgeon's, where a field is missing or of another type.
    pub fn hydrate<T: autosurgeon::Hydrate>(&self) -> Result<T, autosurgeon::HydrateError> {
        autosurgeon::hydrate(self)
    }

    /// The whole document as a value.
    ///
    /// # Errors
    /// automerge's.
    pub fn value(&self) -> Result<hydrate::Value, AutomergeError> {
        ReadDoc::hydrate(self.document, ROOT, self.heads.as_deref())
    }

    /// The value at a place, and its object's id if it is an object.
    ///
    /// # Errors
    /// automerge's.
    pub fn get(&self, object: &ObjId, prop: impl Into<Prop>) -> Result<Option<(Value<'a>, ObjId)>, AutomergeError> {
        match &self.heads {
            Some(heads) => self.document.get_at(object, prop, heads),
            None => self.document.get(object, prop),
        }
    }

    /// The text of a text object.
    ///
    /// # Errors
    /// automerge's, above all when it is no text.
    pub fn text(&self, object: &ObjId) -> Result<String, AutomergeError> {
        match &self.heads {
            Some(heads) => self.document.text_at(object, heads),
            None => self.document.text(object),
        }
    }

    /// Entries of a map or elements of a sequence.
    #[must_use]
    pub fn length(&self, object: &ObjId) -> usize {
        match &self.heads {
            Some(heads) => self.document.length_at(object, heads),
            None => self.document.length(object),
        }
    }

    /// The object at the end of a path from the root.
    pub(crate) fn find(&self, path: &[Prop]) -> Result<Option<(ObjId, ObjType)>, AutomergeError> {
        let mut found = (ROOT, ObjType::Map);
        for prop in path {
            match self.get(&found.0, prop.clone())? {
                Some((Value::Object(kind), id)) => found = (id, kind),
                _ => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The place that was read last, as a path from the root.
    pub(crate) fn last_path(&self) -> String {
        let last = self.last.borrow();
        let Some((object, prop)) = last.as_ref() else { return "the root".to_owned() };
        let above = self.document.parents(object).map(|parents| parents.map(|parent| parent.prop).collect());
        let mut props: Vec<Prop> = above.unwrap_or_default();
        props.reverse();
        props.push(prop.clone());
        path_text(&props)
    }
}

/// A path as an application would write it: `items[2].title`.
pub(crate) fn path_text(path: &[Prop]) -> String {
    let mut text = String::new();
    for prop in path {
        // Writing into a string does not fail.
        let _ = match prop {
            Prop::Map(key) if text.is_empty() => write!(text, "{key}"),
            Prop::Map(key) => write!(text, ".{key}"),
            Prop::Seq(index) => write!(text, "[{index}]"),
        };
    }
    if text.is_empty() { "the root".to_owned() } else { text }
}

impl<D: ReadDoc> autosurgeon::ReadDoc for View<'_, D> {
    type Parents<'b>
        = Parents<'b>
    where
        Self: 'b;

    fn get_heads(&self) -> Vec<ChangeHash> {
        self.heads.as_ref().unwrap_or(&self.latest).clone()
    }

    fn get<P: Into<Prop>>(&self, object: &ObjId, prop: P) -> Result<Option<(Value<'_>, ObjId)>, AutomergeError> {
        let prop = prop.into();
        *self.last.borrow_mut() = Some((object.clone(), prop.clone()));
        View::get(self, object, prop)
    }

    fn object_type<O: AsRef<ObjId>>(&self, object: O) -> Option<ObjType> {
        self.document.object_type(object).ok()
    }

    fn map_range<'b, O, R>(&'b self, object: O, range: R) -> MapRange<'b>
    where
        R: RangeBounds<String> + 'b,
        O: AsRef<ObjId>,
    {
        match &self.heads {
            Some(heads) => self.document.map_range_at(object, range, heads),
            None => self.document.map_range(object, range),
        }
    }

    fn list_range<O: AsRef<ObjId>, R: RangeBounds<usize>>(&self, object: O, range: R) -> ListRange<'_> {
        match &self.heads {
            Some(heads) => self.document.list_range_at(object, range, heads),
            None => self.document.list_range(object, range),
        }
    }

    fn length<O: AsRef<ObjId>>(&self, object: O) -> usize {
        View::length(self, object.as_ref())
    }

    fn text<O: AsRef<ObjId>>(&self, object: O) -> Result<String, AutomergeError> {
        View::text(self, object.as_ref())
    }

    fn parents<O: AsRef<ObjId>>(&self, object: O) -> Result<Self::Parents<'_>, AutomergeError> {
        match &self.heads {
            Some(heads) => self.document.parents_at(object, heads),
            None => self.document.parents(object),
        }
    }

    fn is_empty(&self) -> bool {
        View::length(self, &ROOT) == 0
    }
}
