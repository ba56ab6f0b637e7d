//! A naive f64 forward pass of every [`ArchSpec`]: what the model's own pass is measured against.
//!
//! *What it is.* Nested loops over vectors of f64, one sequence at a time, in the order of the papers and of
//! `transformers`: [`forward`] answers hidden states and logits, [`loss`] what they cost, [`golden`] reads recorded
//! outputs of `transformers` to compare with.
//!
//! *What it is not.* No second engine: no batches, padding, caches or kernels. With `model` it shares the description of
//! an architecture and the names of tensors, and nothing that computes.
//!
//! *What must stay true.* Weights come from the caller, tensor by tensor, as stored: a perturbed, rounded or
//! differentiated model is the same pass over another source. Everything is f64 but the two roundings that belong to
//! the architecture as `transformers` defines it, the frequencies of rotary positions and the epsilon of a
//! normalisation; what is left, some 2⁻⁵⁰ of each value, is nothing beside the f32 of whoever is compared.

mod activation;
mod attention;
pub mod golden;
pub mod loss;
mod rope;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use crate::{
    direction::Stored,
    kernels::activation::Activation,
    model::{ArchSpec, Head, NormKind, NormPlacement, Positions, Projections, Slot},
};

/// One vector per token of a sequence.
pub type Rows = Vec<Vec<f64>>;

/// One of the tensors of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The matrix, table or scale.
    Weight,
    /// What is added.
    Bias,
}

/// The values of a tensor as stored, row-major: of a slot, in a block (0 outside the blocks).
pub type Source<'a> = &'a dyn Fn(Slot, usize, Role) -> Vec<f64>;

/// The adapter of the layer in a slot, in a block, if it has one.
pub type Bottlenecks<'a> = &'a dyn Fn(Slot, usize) -> Option<Bottleneck>;

/// `x + W_up relu(W_down x + b_down) + b_up`, its matrices whole.
#[derive(Clone, Debug)]
pub struct Bottleneck {
    /// Whether it makes the rows that the layer reads, or others of those that it makes.
    pub is_before: bool,
    /// `W_down` as rows of outputs, and `b_down`.
    pub down: (Rows, Vec<f64>),
    /// The same of `up`.
    pub up: (Rows, Vec<f64>),
}

impl Bottleneck {
    fn of(&self, rows: &Rows) -> Rows {
        let layer = |(weight, bias): &(Rows, Vec<f64>), x: &[f64]| -> Vec<f64> {
            let dot = |w: &Vec<f64>| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            weight.iter().zip(bias).map(|(w, b)| dot(w) + b).collect()
        };
        let row = |x: &Vec<f64>| {
            let inner: Vec<f64> = layer(&self.down, x).into_iter().map(|x| x.max(0.0)).collect();
            sum(x, &layer(&self.up, &inner))
        };
        rows.iter().map(row).collect()
    }
}

/// What a model answers for one sequence.
#[derive(Clone, Debug)]
pub struct Output {
    /// `layers + 1` entries, as `output_hidden_states` has them: the embedding, then the residual stream after each
    /// block, the last one after the final normalisation and projection where there are such.
    pub hidden: Vec<Rows>,
    /// A row for every token, or one row for a classifier; `None` without a head.
    pub logits: Option<Rows>,
    /// What enters the activations of each block's feed-forward layer.
    pub units: Vec<Rows>,
}

/// Evaluates a model on the tokens of one sequence.
///
/// # Panics
/// On a tensor whose length is not that of `spec`, on tokens beyond the vocabulary or the positions, and on no tokens.
pub fn forward(spec: &ArchSpec, source: Source<'_>, tokens: &[u32]) -> Output {
    adapted(spec, source, &|_, _| None, tokens)
}

/// The same with bottlenecks.
///
/// # Panics
/// As [`forward`].
pub fn adapted(spec: &ArchSpec, source: Source<'_>, bottlenecks: Bottlenecks<'_>, tokens: &[u32]) -> Output {
    let pass = Pass { spec, source, bottlenecks, units: RefCell::default() };
    let mut hidden = vec![pass.embed(tokens)];
    for layer in 0..spec.layers {
        hidden.push(pass.block(layer, &hidden[layer]));
    }
    let last = hidden.pop().map(|rows| pass.last(rows)).expect("the embedding at least");
    let logits = pass.logits(&last);
    hidden.push(last);
    Output { hidden, logits, units: pass.units.into_inner() }
}

/// The forward pass of one architecture over one source of weights.
struct Pass<'a> {
    spec: &'a ArchSpec,
    source: Source<'a>,
    bottlenecks: Bottlenecks<'a>,
    /// See [`Output::units`].
    units: RefCell<Vec<Rows>>,
}

impl Pass<'_> {
    fn embed(&self, tokens: &[u32]) -> Rows {
        let ArchSpec { vocab_size, hidden_size, ref embedding, .. } = *self.spec;
        let table = self.tensor(Slot::TokenEmbedding, 0, Role::Weight, vocab_size * embedding.width);
        let row = |table: &[f64], row: usize, width: usize| table[row * width..(row + 1) * width].to_vec();
        let mut rows: Rows = tokens.iter().map(|&token| row(&table, token as usize, embedding.width)).collect();
        if embedding.width != hidden_size {
            rows = self.linear(Slot::ProjectIn, 0, Stored::OutIn, false, &rows, hidden_size);
        }
        if embedding.token_types > 0 {
            let types = embedding.token_types * hidden_size;
            let table = self.tensor(Slot::TokenTypeEmbedding, 0, Role::Weight, types);
            rows.iter_mut().for_each(|x| *x = sum(x, &table[..hidden_size]));
        }
        if let Positions::Learned { offset, rows: positions } = embedding.positions {
            let table = self.tensor(Slot::PositionEmbedding, 0, Role::Weight, positions * hidden_size);
            for (position, x) in rows.iter_mut().enumerate() {
                *x = sum(x, &row(&table, offset + position, hidden_size));
            }
        }
        if embedding.norm { self.norm(Slot::EmbeddingNorm, 0, &rows) } else { rows }
    }

    fn block(&self, layer: usize, h: &Rows) -> Rows {
        let h = self.residual(Slot::AttentionNorm, layer, h, |x| self.attend(layer, x));
        self.residual(Slot::FfnNorm, layer, &h, |x| self.feed_forward(layer, x))
    }

    /// A layer, its normalisation and its residual addition.
    fn residual(&self, norm: Slot, layer: usize, h: &Rows, apply: impl Fn(&Rows) -> Rows) -> Rows {
        let add = |y: &Rows| h.iter().zip(y).map(|(h, y)| sum(h, y)).collect();
        match self.spec.norm.placement {
            NormPlacement::Before => add(&apply(&self.norm(norm, layer, h))),
            NormPlacement::After => self.norm(norm, layer, &add(&apply(h))),
        }
    }

    fn attend(&self, layer: usize, x: &Rows) -> Rows {
        let ArchSpec { hidden_size, ref attention, stored, .. } = *self.spec;
        let (query_width, key_width) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        let product = |slot, outputs| self.linear(slot, layer, stored, attention.bias, x, outputs);
        let [mut queries, mut keys, values] = match attention.projections {
            Projections::Split => [(Slot::Query, query_width), (Slot::Key, key_width), (Slot::Value, key_width)]
                .map(|(s, n)| product(s, n)),
            Projections::Fused => {
                let all = product(Slot::QueryKeyValue, query_width + 2 * key_width);
                let keys = query_width + key_width;
                [0..query_width, query_width..keys, keys..keys + key_width]
                    .map(|columns| all.iter().map(|row| row[columns.clone()].to_vec()).collect())
            }
        };
        if let Positions::Rope { theta, scaling } = self.spec.embedding.positions {
            let frequencies = rope::frequencies(attention.head_dim, theta, scaling);
            rope::turn(&frequencies, &mut queries);
            rope::turn(&frequencies, &mut keys);
        }
        let mixed = attention::attention(attention, &queries, &keys, &values);
        self.linear(Slot::AttentionOut, layer, stored, attention.out_bias, &mixed, hidden_size)
    }

    fn feed_forward(&self, layer: usize, x: &Rows) -> Rows {
        let ArchSpec { hidden_size, ref ffn, stored, .. } = *self.spec;
        let product = |slot, x: &Rows, outputs| self.linear(slot, layer, stored, ffn.bias, x, outputs);
        let mut inner = product(Slot::Up, x, ffn.width);
        if ffn.gated {
            let gate = product(Slot::Gate, x, ffn.width);
            self.units.borrow_mut().push(gate.clone());
            let gate = activated(ffn.activation, gate);
            for (up, gate) in inner.iter_mut().flatten().zip(gate.iter().flatten()) {
                *up *= gate;
            }
        } else {
            self.units.borrow_mut().push(inner.clone());
            inner = activated(ffn.activation, inner);
        }
        product(Slot::Down, &inner, hidden_size)
    }

    /// What follows the last block.
    fn last(&self, mut rows: Rows) -> Rows {
        let ArchSpec { hidden_size, ref embedding, ref norm, .. } = *self.spec;
        if norm.last {
            rows = self.norm(Slot::LastNorm, 0, &rows);
        }
        if embedding.width != hidden_size {
            rows = self.linear(Slot::ProjectOut, 0, Stored::OutIn, false, &rows, embedding.width);
        }
        rows
    }

    fn logits(&self, hidden: &Rows) -> Option<Rows> {
        let ArchSpec { vocab_size, hidden_size, ref head, .. } = *self.spec;
        let dense = |slot, x: &Rows| self.linear(slot, 0, Stored::OutIn, true, x, hidden_size);
        let vocabulary = |tied: bool, x: &Rows| {
            let slot = if tied { Slot::TokenEmbedding } else { Slot::Head };
            self.linear(slot, 0, Stored::OutIn, false, x, vocab_size)
        };
        match *head {
            Head::None => None,
            Head::CausalLm { tied } => Some(vocabulary(tied, hidden)),
            Head::MaskedLm { tied, activation } => {
                let features = activated(activation, dense(Slot::MaskedDense, hidden));
                let logits = vocabulary(tied, &self.norm(Slot::MaskedNorm, 0, &features));
                let bias = self.tensor(Slot::HeadBias, 0, Role::Bias, vocab_size);
                Some(logits.iter().map(|row| sum(row, &bias)).collect())
            }
            Head::Classifier { labels } => {
                let pooled = activated(Activation::Tanh, dense(Slot::ClassDense, &vec![hidden[0].clone()]));
                Some(self.linear(Slot::Classes, 0, Stored::OutIn, true, &pooled, labels))
            }
        }
    }

    fn linear(&self, slot: Slot, layer: usize, stored: Stored, bias: bool, x: &Rows, outputs: usize) -> Rows {
        let bottleneck = (self.bottlenecks)(slot, layer);
        match &bottleneck {
            Some(adapter) if adapter.is_before => self.plain(slot, layer, stored, bias, &adapter.of(x), outputs),
            Some(adapter) => adapter.of(&self.plain(slot, layer, stored, bias, x, outputs)),
            None => self.plain(slot, layer, stored, bias, x, outputs),
        }
    }

    fn plain(&self, slot: Slot, layer: usize, stored: Stored, bias: bool, x: &Rows, outputs: usize) -> Rows {
        let inputs = x[0].len();
        let weight = self.tensor(slot, layer, Role::Weight, inputs * outputs);
        let at = |output: usize, input: usize| match stored {
            Stored::OutIn => weight[output * inputs + input],
            Stored::InOut => weight[input * outputs + output],
        };
        let bias = if bias { self.tensor(slot, layer, Role::Bias, outputs) } else { vec![0.0; outputs] };
        let product = |x: &Vec<f64>, output| bias[output] + (0..inputs).map(|i| x[i] * at(output, i)).sum::<f64>();
        x.iter().map(|x| (0..outputs).map(|output| product(x, output)).collect()).collect()
    }

    fn norm(&self, slot: Slot, layer: usize, x: &Rows) -> Rows {
        let ArchSpec { hidden_size, ref norm, .. } = *self.spec;
        let weight = self.tensor(slot, layer, Role::Weight, hidden_size);
        let bias = match norm.kind {
            NormKind::Layer => self.tensor(slot, layer, Role::Bias, hidden_size),
            NormKind::Rms => vec![0.0; hidden_size],
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let normalised = |x: &Vec<f64>| -> Vec<f64> {
            let centre = if norm.kind == NormKind::Layer { mean(x) } else { 0.0 };
            let centred: Vec<f64> = x.iter().map(|x| x - centre).collect();
            let squares: Vec<f64> = centred.iter().map(|x| x * x).collect();
            let deviation = (mean(&squares) + f64::from(norm.eps)).sqrt();
            (0..hidden_size).map(|i| centred[i] / deviation * weight[i] + bias[i]).collect()
        };
        x.iter().map(normalised).collect()
    }

    fn tensor(&self, slot: Slot, layer: usize, role: Role, length: usize) -> Vec<f64> {
        let values = (self.source)(slot, layer, role);
        assert_eq!(values.len(), length, "values of {slot:?} {role:?} in block {layer}");
        values
    }
}

fn sum(x: &[f64], y: &[f64]) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "a sum of vectors");
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

fn activated(activation: Activation, rows: Rows) -> Rows {
    let value = |x| activation::value(activation, x);
    rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect()
}
