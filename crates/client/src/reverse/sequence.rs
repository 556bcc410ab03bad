//! The elements of one list or text, by the ids of their values.
//!
//! Owns: where each is. Must not: change a document. Next: `reverse.rs`.

use std::collections::HashSet;

use automerge::{ChangeHash, ObjId, ObjType, ReadDoc, ScalarValue, ScalarValueRef, TextEncoding, ValueRef};

/// The elements in order.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    elements: Vec<Element>,
    present: HashSet<ObjId>,
    /// Some element is not one unit wide.
    uneven: bool,
    /// Where the last search ended: the next is near.
    hint: usize,
}

#[derive(Debug)]
struct Element {
    id: ObjId,
    /// In the unit of the document's positions.
    width: usize,
}

impl Sequence {
    /// The elements of an object as it is, or as it was at these heads.
    pub(super) fn of<D: ReadDoc>(document: &D, object: &ObjId, heads: Option<&[ChangeHash]>) -> Self {
        let encoding = document.text_encoding();
        let is_text = document.object_type(object).is_ok_and(|kind| kind == ObjType::Text);
        let (items, length) = match heads {
            Some(heads) => (document.list_range_at(object, .., heads), document.length_at(object, heads)),
            None => (document.list_range(object, ..), document.length(object)),
        };
        let width = |value: &ValueRef<'_>| if is_text { width_of(value, encoding) } else { 1 };
        let elements = items.map(|item| Element { id: item.id(), width: width(&item.value) });
        let mut sequence = Self::default();
        elements.for_each(|element| sequence.push(element));
        if sequence.position_of(usize::MAX) == length {
            return sequence;
        }
        // Among the operations of a text are its marks, which have no place in it.
        let mut sequence = Self::default();
        let mut position = 0;
        while position < length {
            let found = match heads {
                Some(heads) => document.get_at(object, position, heads),
                None => document.get(object, position),
            };
            let Ok(Some((value, id))) = found else { break };
            let text = value.as_scalar().and_then(ScalarValue::as_str);
            let width = text.map_or(1, |text| text_width(text, encoding)).max(1);
            sequence.push(Element { id, width });
            position += width;
        }
        sequence
    }

    fn push(&mut self, element: Element) {
        self.present.insert(element.id.clone());
        self.uneven |= element.width != 1;
        self.elements.push(element);
    }

    /// The position of the element with this value, if it is there.
    pub(super) fn find(&mut self, id: &ObjId) -> Option<usize> {
        self.index_of(id).map(|index| self.position_of(index))
    }

    /// The number of the element with this value.
    pub(super) fn index_of(&mut self, id: &ObjId) -> Option<usize> {
        if !self.present.contains(id) {
            return None;
        }
        let is_it = |index: usize| self.elements.get(index).is_some_and(|element| element.id == *id);
        let distances = 0..=self.elements.len();
        let mut near = distances.flat_map(|distance| [self.hint.wrapping_sub(distance), self.hint + distance]);
        self.hint = near.find(|index| is_it(*index))?;
        Some(self.hint)
    }

    /// All values' ids, in order.
    pub(super) fn into_ids(self) -> impl Iterator<Item = ObjId> {
        self.elements.into_iter().map(|element| element.id)
    }

    /// The value's id of an element by its number.
    pub(super) fn id(&self, index: usize) -> Option<&ObjId> {
        self.elements.get(index).map(|element| &element.id)
    }

    /// The position of an element by its number; of the end, beyond them.
    pub(super) fn position_of(&self, index: usize) -> usize {
        if !self.uneven {
            return index.min(self.elements.len());
        }
        self.elements.iter().take(index).map(|element| element.width).sum()
    }

    /// The number of the element at a position.
    pub(super) fn index_at(&self, position: usize) -> usize {
        if !self.uneven {
            return position.min(self.elements.len());
        }
        let mut end = 0;
        let before = |element: &&Element| {
            end += element.width;
            end <= position
        };
        self.elements.iter().take_while(before).count()
    }

    /// An element has been inserted before the one with this number.
    pub(super) fn insert(&mut self, index: usize, id: ObjId, width: usize) {
        self.present.insert(id.clone());
        self.uneven |= width != 1;
        self.elements.insert(index.min(self.elements.len()), Element { id, width });
        self.hint = index;
    }

    /// An element has been deleted.
    pub(super) fn remove(&mut self, index: usize) {
        if index < self.elements.len() {
            let element = self.elements.remove(index);
            self.present.remove(&element.id);
        }
    }

    /// An element has another value.
    pub(super) fn replace(&mut self, index: usize, id: ObjId) {
        if let Some(element) = self.elements.get_mut(index) {
            self.present.insert(id.clone());
            let old = std::mem::replace(&mut element.id, id);
            self.present.remove(&old);
        }
    }

    /// The width of an element by its number.
    pub(super) fn width(&self, index: usize) -> usize {
        self.elements.get(index).map_or(0, |element| element.width)
    }
}

fn width_of(value: &ValueRef<'_>, encoding: TextEncoding) -> usize {
    match value {
        ValueRef::Scalar(ScalarValueRef::Str(text)) => text_width(text, encoding),
        ValueRef::Scalar(_) | ValueRef::Object(_) => 1,
    }
}

/// Units that a piece of text takes.
fn text_width(text: &str, encoding: TextEncoding) -> usize {
    match encoding {
        TextEncoding::UnicodeCodePoint => text.chars().count(),
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::GraphemeCluster => 1,
    }
}
