//! An operator's state as a sequence of pieces, taken up again in the order in which they were given.
//!
//! Giving is cheap, because the tick thread waits for it: rows and weights are shared with the running state, and only
//! plain numbers are copied. Whoever writes the pieces down does so on a thread of its own.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Schema, SchemaRef};

use crate::engine::ipc;
use crate::engine::state::weights::Weights;
use crate::error::{Error, Result, SqlState};

/// A piece's first byte, where it is rows.
const ROWS: u8 = 1;
/// A piece's first byte, where it is numbers.
const PLAIN: u8 = 2;

/// Where a tile of rows is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the file.
    pub file: u64,
    /// The byte at which it begins there.
    pub offset: u64,
}

const PLACE_BYTES: usize = 16;

enum Piece {
    /// Rows of the same columns, in tiles.
    Rows(SchemaRef, Vec<Arc<RecordBatch>>),
    /// Weights of rows.
    Weights(Weights),
    /// Numbers of one width.
    Plain(Buffer),
}

/// Pieces as they were given.
#[derive(Default)]
pub struct Saved {
    pieces: Vec<Piece>,
}

/// Pieces to be taken up.
pub struct Restored {
    pieces: std::vec::IntoIter<Piece>,
}

/// An error as it is written down, with a number that says whose it is.
#[derive(serde::Serialize, serde::Deserialize)]
struct SavedError {
    of: i64,
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<u32>,
}

impl Saved {
    /// Rows of these columns.
    pub fn rows(&mut self, schema: &SchemaRef, tiles: Vec<Arc<RecordBatch>>) {
        self.pieces.push(Piece::Rows(Arc::clone(schema), tiles));
    }

    /// Weights of rows.
    pub fn weights(&mut self, weights: &Weights) {
        self.pieces.push(Piece::Weights(weights.clone()));
    }

    /// Numbers.
    pub fn numbers<T: ArrowNativeType>(&mut self, numbers: &[T]) {
        self.pieces.push(Piece::Plain(Buffer::from_slice_ref(numbers)));
    }

    /// Lists of numbers.
    pub fn lists<'a>(&mut self, lists: impl Iterator<Item = &'a [u32]> + Clone) {
        self.numbers(&lists.clone().map(|list| list.len() as u32).collect::<Vec<_>>());
        self.numbers(&lists.flatten().copied().collect::<Vec<_>>());
    }

    /// Errors, each with a number that says whose it is.
    pub fn errors<'a>(&mut self, errors: impl Iterator<Item = (i64, &'a Error)>) -> Result<()> {
        let errors: Vec<SavedError> = errors
            .map(|(of, error)| SavedError {
                of,
                sqlstate: error.sqlstate.0.to_string(),
                message: error.message.clone(),
                detail: error.detail.clone(),
                hint: error.hint.clone(),
                position: error.position,
            })
            .collect();
        let text = serde_json::to_vec(&errors).map_err(|e| Error::internal(e.to_string()))?;
        self.numbers(&text);
        Ok(())
    }

    /// All tiles of rows.
    pub fn tiles(&self) -> impl Iterator<Item = &Arc<RecordBatch>> {
        fn tiles(piece: &Piece) -> &[Arc<RecordBatch>] {
            match piece {
                Piece::Rows(_, tiles) => tiles,
                Piece::Weights(_) | Piece::Plain(_) => &[],
            }
        }
        self.pieces.iter().flat_map(tiles)
    }

    /// Appends the pieces as bytes: for each its kind, its length, itself. Of rows, only where `place` has written each
    /// tile down.
    pub fn encode(
        &self,
        buffer: &mut Vec<u8>,
        mut place: impl FnMut(&Arc<RecordBatch>) -> Result<Place>,
    ) -> Result<()> {
        for piece in &self.pieces {
            buffer.push(if matches!(piece, Piece::Rows(..)) { ROWS } else { PLAIN });
            let at = buffer.len();
            buffer.extend_from_slice(&[0; 8]);
            match piece {
                Piece::Rows(schema, tiles) => {
                    buffer.extend_from_slice(&(tiles.len() as u64).to_le_bytes());
                    for tile in tiles {
                        let Place { file, offset } = place(tile)?;
                        buffer.extend_from_slice(&file.to_le_bytes());
                        buffer.extend_from_slice(&offset.to_le_bytes());
                    }
                    ipc::write(buffer, schema, std::iter::empty())?;
                }
                Piece::Weights(weights) => {
                    // Most rows are there once: only the others are told of, with their numbers.
                    let all = weights.exceptional().into_iter().flatten();
                    for (id, weight) in (0i64..).zip(all).filter(|(_, weight)| *weight != 1) {
                        buffer.extend_from_slice(&id.to_ne_bytes());
                        buffer.extend_from_slice(&weight.to_ne_bytes());
                    }
                }
                Piece::Plain(numbers) => buffer.extend_from_slice(numbers),
            }
            let len = (buffer.len() - at - 8) as u64;
            buffer[at..at + 8].copy_from_slice(&len.to_le_bytes());
        }
        Ok(())
    }
}

impl Restored {
    /// The pieces that these bytes are; `tile` reads what is written down in a place.
    pub fn decode(
        mut bytes: &[u8],
        mut tile: impl FnMut(Place) -> Result<Arc<RecordBatch>>,
    ) -> Result<Restored> {
        let mut pieces = Vec::new();
        while let Some((kind, rest)) = bytes.split_first() {
            let (len, rest) = rest.split_first_chunk::<8>().ok_or_else(misfit)?;
            let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| misfit())?;
            let (piece, rest) = rest.split_at_checked(len).ok_or_else(misfit)?;
            bytes = rest;
            pieces.push(match *kind {
                ROWS => {
                    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
                    let count = number(piece).and_then(|n| usize::try_from(n).ok()).ok_or_else(misfit)?;
                    let places = count.checked_mul(PLACE_BYTES).ok_or_else(misfit)?;
                    let (places, schema) = piece[8..].split_at_checked(places).ok_or_else(misfit)?;
                    let mut tiles = Vec::with_capacity(count);
                    for place in places.chunks_exact(PLACE_BYTES) {
                        let place = number(place).zip(number(&place[8..])).ok_or_else(misfit)?;
                        tiles.push(tile(Place { file: place.0, offset: place.1 })?);
                    }
                    Piece::Rows(ipc::read(schema)?.0, tiles)
                }
                PLAIN => {
                    // Aligned for numbers of any width.
                    let mut numbers = MutableBuffer::with_capacity(piece.len());
                    numbers.extend_from_slice(piece);
                    Piece::Plain(numbers.into())
                }
                _ => return Err(misfit()),
            });
        }
        Ok(Restored { pieces: pieces.into_iter() })
    }

    /// The next piece, rows of whatever columns.
    pub fn any_rows(&mut self) -> Result<(SchemaRef, Vec<Arc<RecordBatch>>)> {
        match self.pieces.next() {
            Some(Piece::Rows(schema, tiles)) => Ok((schema, tiles)),
            _ => Err(misfit()),
        }
    }

    /// The next piece, rows with columns of these types.
    pub fn rows(&mut self, schema: &Schema) -> Result<Vec<Arc<RecordBatch>>> {
        let types = |s: &Schema| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<DataType>>();
        let (found, tiles) = self.any_rows()?;
        if types(&found) == types(schema) { Ok(tiles) } else { Err(misfit()) }
    }

    /// The next piece, numbers.
    pub fn numbers<T: ArrowNativeType>(&mut self) -> Result<Vec<T>> {
        match self.pieces.next() {
            Some(Piece::Plain(numbers)) if numbers.len().is_multiple_of(size_of::<T>()) => {
                Ok(ScalarBuffer::<T>::from(numbers).to_vec())
            }
            _ => Err(misfit()),
        }
    }

    /// The next piece, one number.
    pub fn number<T: ArrowNativeType>(&mut self) -> Result<T> {
        match self.numbers()?[..] {
            [number] => Ok(number),
            _ => Err(misfit()),
        }
    }

    /// The next piece, numbers of which there must be `len`.
    pub fn numbers_of<T: ArrowNativeType>(&mut self, len: usize) -> Result<Vec<T>> {
        let numbers = self.numbers()?;
        if numbers.len() == len { Ok(numbers) } else { Err(misfit()) }
    }

    /// The next pieces, `count` lists of numbers below `below`.
    pub fn lists(&mut self, count: usize, below: usize) -> Result<Vec<Vec<u32>>> {
        let lengths: Vec<u32> = self.numbers_of(count)?;
        let all: Vec<u32> = self.numbers_of(lengths.iter().map(|len| *len as usize).sum())?;
        if all.iter().any(|number| *number as usize >= below) {
            return Err(misfit());
        }
        let mut all = all.into_iter();
        Ok(lengths.into_iter().map(|len| all.by_ref().take(len as usize).collect()).collect())
    }

    /// The next piece, weights of `rows` rows.
    pub fn weights(&mut self, rows: usize) -> Result<Weights> {
        let exceptional: Vec<i64> = self.numbers()?;
        let mut weights = Weights::default();
        weights.push_ones(rows);
        for pair in exceptional.chunks(2) {
            let [id, weight] = pair else { return Err(misfit()) };
            let id = u32::try_from(*id).ok().filter(|id| (*id as usize) < rows).ok_or_else(misfit)?;
            weights.set(id, *weight);
        }
        Ok(weights)
    }

    /// The next piece, errors with their numbers.
    pub fn errors(&mut self) -> Result<Vec<(i64, Error)>> {
        let text: Vec<u8> = self.numbers()?;
        let errors: Vec<SavedError> = serde_json::from_slice(&text).map_err(|_| misfit())?;
        let error = |e: SavedError| {
            let error = Error {
                sqlstate: SqlState::of(&e.sqlstate),
                message: e.message,
                detail: e.detail,
                hint: e.hint,
                position: e.position,
            };
            (e.of, error)
        };
        Ok(errors.into_iter().map(error).collect())
    }

    /// Whether all pieces were taken up.
    pub fn is_empty(&self) -> bool {
        self.pieces.as_slice().is_empty()
    }
}

/// The error of state that is not what its operator would have given.
pub fn misfit() -> Error {
    Error::new(SqlState::DATA_CORRUPTED, "saved state does not fit the operator that is to take it up")
}
