//! The merges of a `SentencePiece` vocabulary, which has only scores.
//!
//! `SentencePiece` joins the neighbours whose joint piece scores highest; BPE as the `tokenizers` library runs it
//! joins the pair that stands first in a list. So the list is every pair of pieces that make a piece, by falling
//! score, and of one score by the longer left part, as `transformers` 5 orders it (`generate_merges`).

use std::collections::HashMap;

use super::{GgufProblem, tokenizer::Merge};

/// Longest piece in bytes. `SentencePiece` makes none of more than 16 characters unless told to; every way of
/// cutting a piece in two is looked up, so the work grows with the square.
const MAX_PIECE: usize = 256;

/// All merges between pieces for which `is_normal`: bytes, control and user-defined tokens do not merge.
pub(super) fn merges<'a>(
    pieces: &[&'a str],
    scores: &[f32],
    is_normal: impl Fn(usize) -> bool,
    ids: &HashMap<&str, usize>,
) -> Result<Vec<Merge<'a>>, GgufProblem> {
    let mut merges: Vec<(f32, usize, Merge<'a>)> = Vec::new();
    for (id, &piece) in pieces.iter().enumerate().filter(|&(id, _)| is_normal(id)) {
        if piece.len() > MAX_PIECE {
            let token = piece.chars().take(80).collect();
            return Err(GgufProblem::Token { id, token, reason: "is longer than the 256 bytes of a piece" });
        }
        let is_piece = |part: &str| ids.get(part).is_some_and(|&id| is_normal(id));
        for (characters, (cut, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(cut);
            if is_piece(left) && is_piece(right) {
                merges.push((scores[id], characters, (left, right)));
            }
        }
    }
    // Stable: equal keys stay in the order of ids.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    Ok(merges.into_iter().map(|(_, _, merge)| merge).collect())
}
