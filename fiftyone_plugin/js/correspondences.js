/**
 * The view of the Correspondences panel: the keypoints of one image and where they were found in another, coloured by
 * what became of them; what a keypoint resembles; labels mended; figures. Its Python side is
 * `fiftyone_plugin/panels/correspondences.py`; it builds upon `selfsame.js` and `pairs.js`.
 *
 * @typedef {{name: string, source: number[], target: number[], truth: number[]|null, similarity: number|null,
 *   partner: string|null, error_type: string|null, distance: number|null, suspicion: number|null, risk: number|null,
 *   label_suspect: number|null, mutual: boolean|null, handed_over: boolean|null}} Match places are shares of the pictures
 * @typedef {{pair: object, sides: {id: string, group: string, filepath: string}[], matches: Match[],
 *   couples: string[][], stale: boolean, exchanges: {count: number, last: object|null}}} Opened
 * @typedef {{place: number[], similarity: number}} Mark
 * @typedef {{height: number, width: number, values: string, low: number, high: number, content: number[], peak: Mark,
 *   rival: Mark|null}} Grid `values`: base64 of a byte per cell; `content`: the picture on the grid, as shares of it
 */
(function () {
  "use strict";

  const { Fragment, useEffect, useMemo, useRef, useState } = window.React;
  const { h, useNaturalSize, keyHandler, source, count, plural, fixed, fileName } = window.__selfsame__;
  const { usePairs, PairHome, PairList, Decided, originButtons, pairOptions, useWidth, placed } = window.__selfsame__;
  const { Button, Choice, Frame, Icon, RunChoice, Tick, Undo, views } = window.__selfsame__;

  // What became of a keypoint: short, in words, colour (told apart by the colour-blind, too), dashes, and its mark.
  const TYPES = {
    swap_mirror: ["mirror swap", "Found at its mirror partner", "#d55e00", "", "cross"],
    swap_group: ["group swap", "Found at another part of the same kind", "#cc79a7", "9 3", "square"],
    swap_other: ["other swap", "Found at some other part", "#cc79a7", "3 3", "diamond"],
    phantom_mirror: ["phantom, mirror", "Not in the target; found at its mirror partner", "#0072b2", "9 3 2 3", "cross"],
    phantom_group: ["phantom, group", "Not in the target; found at a part of the same kind", "#0072b2", "3 3", "square"],
    miss_background: ["missed object", "Found off the object", "#e69f00", "2 4", "triangle"],
    miss_object: ["missed", "Found elsewhere on the object", "#e69f00", "9 3", "triangle"],
    jitter: ["near miss", "Within twice the threshold of its place", "#f0e442", "6 3", "diamond"],
    not_in_target: ["not in target", "Not in the target, so it cannot be right", "#a7a7a7", "2 4", "plus"],
    correct_ambiguous: ["ambiguous", "At its place, but another keypoint is nearer", "#56b4e9", "9 3", "circle"],
    correct: ["correct", "At its place", "#009e73", "", "circle"],
  };
  const UNJUDGED = ["unjudged", "The target is not annotated", "#56b4e9", "", "circle"];
  const typeOf = (name) => TYPES[name] || UNJUDGED;

  const DECISIONS = { ok: ["check_circle", "right"], swap: ["flip", "swapped"] };
  const SORTS = { risk: "Highest risk", suspicion: "Most suspicious", worst: "Worst error", score: "Least similar", label: "Wrong label?" };
  const COLOURS = { type: "Error type", similarity: "Confidence", suspicion: "Suspicion" };

  // From low to high; lightness rises, so that it reads without colours, too.
  const RAMP = [[68, 40, 130], [49, 104, 190], [53, 160, 160], [170, 200, 80], [253, 231, 60]];

  function ramp(share) {
    const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
    const i = Math.min(Math.floor(place), RAMP.length - 2);
    return RAMP[i].map((low, k) => Math.round(low + (place - i) * (RAMP[i + 1][k] - low)));
  }

  const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1));

  // ------------------------------------------------------------------------------------------------------------ marks

  const SHAPES = {
    circle: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    square: "M-4 -4h8v8h-8z",
    diamond: "M0 -5.5L5.5 0L0 5.5L-5.5 0z",
    triangle: "M0 -5L5 4H-5z",
    cross: "M-4 -4L4 4M-4 4L4 -4",
    plus: "M0 -5V5M-5 0H5",
  };

  /** The mark of a match; over a dark one, so that it shows on any picture. */
  function Mark({ shape, x, y }) {
    const open = shape === "cross" || shape === "plus";
    const place = { d: SHAPES[shape], transform: `translate(${x} ${y})` };
    return [
      h("path", { key: "under", ...place, className: open ? "sfc-under" : "sfc-rim" }),
      h("path", { key: "mark", ...place, className: open ? "sfc-open" : "sfc-filled" }),
    ];
  }

  function Swatch({ type }) {
    const [, , colour, dash, shape] = typeOf(type);
    return h(
      "svg",
      { className: "sfc-swatch sfc-match", width: 38, height: 14, viewBox: "0 0 38 14", style: { "--tone": colour }, "aria-hidden": true },
      h("line", { x1: 1, y1: 7, x2: 30, y2: 7, className: "sfc-under" }),
      h("line", { x1: 1, y1: 7, x2: 30, y2: 7, strokeDasharray: dash, className: "sfc-stroke" }),
      h(Mark, { shape, x: 31, y: 7 })
    );
  }

  /** How matches are coloured: by type, or by a figure between the least and the most of those shown. */
  function colouring(matches, by) {
    if (by === "type") return { of: (match) => typeOf(match.error_type)[2] };
    const values = matches.map((match) => match[by]).filter((value) => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const share = (value) => (high > low ? (value - low) / (high - low) : 1);
    return { low, high, of: (match) => (match[by] === null ? "#a7a7a7" : `rgb(${ramp(share(match[by])).join(" ")})`) };
  }

  const Scale = ({ name, low, high }) => [
    h("span", { key: "low" }, `${name} ${fixed(low, 2)}`),
    h("i", { key: "scale", className: "sfc-scale", "aria-hidden": true }),
    h("span", { key: "high" }, fixed(high, 2)),
  ];

  function Legend({ matches, by, colours }) {
    const counts = {};
    for (const match of matches) counts[match.error_type] = (counts[match.error_type] || 0) + 1;
    const there = [...Object.keys(TYPES), "null"].filter((type) => counts[type]);
    if (by !== "type")
      return h("div", { className: "sfs-row sfs-dim", "data-cy": "selfsame-legend" }, h(Scale, { name: COLOURS[by], low: colours.low, high: colours.high }));
    return h(
      "ul",
      { className: "sfc-legend", "data-cy": "selfsame-legend", "aria-label": "What became of the keypoints" },
      there.map((type) => h("li", { key: type, title: typeOf(type)[1] }, h(Swatch, { type }), `${typeOf(type)[0]} ${count(counts[type])}`)),
      matches.some((match) => match.truth) && h("li", { key: "truth", title: "Where the keypoint is annotated in the target" }, h("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": true }, h("circle", { r: 5, className: "sfc-truth" })), "true place")
    );
  }

  // --------------------------------------------------------------------------------------------------------- pictures

  /** A grid of similarities as a picture of its own, a pixel per cell. */
  function useHeat(grid) {
    return useMemo(() => {
      if (!grid) return null;
      const bytes = Uint8Array.from(atob(grid.values), (letter) => letter.charCodeAt(0));
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [grid.width, grid.height];
      const pen = canvas.getContext("2d");
      const image = pen.createImageData(grid.width, grid.height);
      // What is least similar lets the picture through.
      bytes.forEach((value, i) => image.data.set([...ramp(value / 255), 20 + 200 * (value / 255) ** 1.5], 4 * i));
      pen.putImageData(image, 0, 0);
      return canvas.toDataURL();
    }, [grid]);
  }

  /** Similarities over a picture, in register with it: the grid reaches beyond it, where the canvas was padded. */
  function Heat({ grid, box, id }) {
    const href = useHeat(grid);
    const [left, top, width, height] = grid.content;
    const [across, down] = [box.width / width, box.height / height];
    const whole = { x: box.x - left * across, y: box.y - top * down, width: across, height: down };
    return h(
      Fragment,
      null,
      h("clipPath", { id }, h("rect", box)),
      h("g", { clipPath: `url(#${id})` }, h("image", { href, ...whole, preserveAspectRatio: "none", className: "sfc-heat", "data-cy": id }))
    );
  }

  const at = (box, [x, y], mirrored) => [box.x + (mirrored ? 1 - x : x) * box.width, box.y + y * box.height];

  /** The most similar place and the place of the mirror partner, with their similarities. */
  function HeatMarks({ grid, partner, box }) {
    // Apart from each other, for both may be in one place.
    const lift = { peak: -5, rival: 15 };
    const mark = (kind, { place, similarity }, name) => {
      const [x, y] = at(box, place);
      const left = x > box.x + box.width / 2;
      return h(
        "g",
        { key: kind, className: `sfc-${kind}`, "data-cy": `selfsame-${kind}` },
        h("circle", { cx: x, cy: y, r: 8, className: "sfc-under" }),
        h("circle", { cx: x, cy: y, r: 8 }),
        h("text", { x: x + (left ? -12 : 12), y: y + lift[kind], textAnchor: left ? "end" : "start" }, `${name} ${fixed(similarity, 2)}`)
      );
    };
    return [grid.rival && mark("rival", grid.rival, partner), mark("peak", grid.peak, "best")];
  }

  function Picture({ side, box, mirrored, number, onOpen }) {
    const turn = mirrored ? `translate(${2 * box.x + box.width} 0) scale(-1 1)` : undefined;
    return h(
      "g",
      { onDoubleClick: onOpen, "data-cy": `selfsame-side-${number}` },
      h("title", null, side.filepath),
      h("image", { href: source(side.filepath), ...box, transform: turn, preserveAspectRatio: "none" })
    );
  }

  /** A match: its line, its point in the source, what became of it in the target, and where it should be. */
  function MatchLine({ match, boxes, mirrored, colour, plain, lit, faint, onHover, onChoose }) {
    const [x1, y1] = at(boxes[0], match.source, mirrored);
    const [x2, y2] = at(boxes[1], match.target);
    const [short, , , dash, shape] = typeOf(match.error_type);
    const truth = match.truth && at(boxes[1], match.truth);
    const names = ["sfc-match", lit && "sfc-lit", faint && "sfc-faint"].filter(Boolean).join(" ");
    return h(
      "g",
      { className: names, style: { "--tone": colour }, "data-cy": `selfsame-match-${match.name}`, onMouseEnter: () => onHover(match.name), onMouseLeave: () => onHover(null), onClick: () => onChoose(match.name) },
      h("title", null, `${match.name}: ${short}, confidence ${fixed(match.similarity, 3)}`),
      h("line", { x1, y1, x2, y2, className: "sfc-reach" }),
      h("line", { x1, y1, x2, y2, className: "sfc-under" }),
      h("line", { x1, y1, x2, y2, strokeDasharray: plain ? "" : dash, className: "sfc-stroke" }),
      truth && lit && h("line", { x1: x2, y1: y2, x2: truth[0], y2: truth[1], className: "sfc-off" }),
      truth && h("circle", { cx: truth[0], cy: truth[1], r: 7, className: "sfc-truth-under" }),
      truth && h("circle", { cx: truth[0], cy: truth[1], r: 7, className: "sfc-truth" }),
      h("circle", { cx: x1, cy: y1, r: 4.5, className: "sfc-filled sfc-start" }),
      h(Mark, { shape, x: x2, y: y2 })
    );
  }

  /** Both pictures of a pair with all matches that are shown, and over the target what the chosen keypoint resembles. */
  function PairPicture({ opened, matches, colours, saved, heat, focus, onHover, onChoose, onOpen }) {
    const [place, width] = useWidth();
    const known = opened.sides.map((side) => useNaturalSize(source(side.filepath), true));
    const { boxes, height } = placed(known.map((size) => size || [4, 3]), Math.max(width, 160));
    // What is in focus is drawn last, over all others.
    const ordered = [...matches].sort((one, other) => (one.name === focus) - (other.name === focus));
    const label = `${fileName(opened.sides[0].filepath)}${saved.mirrored ? ", mirrored," : ""} and ${fileName(opened.sides[1].filepath)}, ${plural(matches.length, "match", "matches")}`;
    return h(
      "div",
      { ref: place, className: "sfs-canvas sfc-canvas" },
      h(
        "svg",
        { width: "100%", height, role: "img", "aria-label": label, "data-cy": "selfsame-picture" },
        opened.sides.map((side, i) => h(Picture, { key: side.id, side, box: boxes[i], mirrored: i === 0 && saved.mirrored, number: i, onOpen: () => onOpen(side) })),
        heat && h(Heat, { grid: heat.target, box: boxes[1], id: "selfsame-heat" }),
        ordered.map((match) => h(MatchLine, { key: match.name, match, boxes, mirrored: saved.mirrored, colour: colours.of(match), plain: saved.colour !== "type", lit: focus === match.name, faint: focus !== null && focus !== match.name, onHover, onChoose })),
        heat && h(HeatMarks, { grid: heat.target, partner: heat.partner, box: boxes[1] })
      )
    );
  }

  /** What a keypoint resembles in the mirrored target, and all that in words. */
  function Rival({ opened, heat, onClose }) {
    const [place, width] = useWidth();
    const { filepath } = opened.sides[1];
    const size = useNaturalSize(source(filepath), true) || [4, 3];
    const height = Math.min((Math.max(width, 120) * size[1]) / size[0], 240);
    const box = { x: 0, y: 0, width: (height * size[0]) / size[1], height };
    const { target, mirrored, partner } = heat;
    const where = heat.rival_is === "annotated" ? "annotated there" : "found there";
    const gain = mirrored.peak.similarity - target.peak.similarity;
    const verdict = Math.abs(gain) < 0.01 ? "The target and its mirror image fit alike." : gain > 0 ? "The mirrored target fits better: left and right may be confused." : "The target as it is fits better.";
    return h(
      "section",
      { className: "sfs-card", "data-cy": "selfsame-resembles", "aria-label": `What ${heat.name} resembles` },
      h("div", { className: "sfs-row" }, h("b", { className: "sfs-grow" }, `What ${heat.name} resembles`), h(Button, { cy: "selfsame-heat-off", icon: "close", hotkey: "H", title: "Heat map off", onClick: onClose })),
      h("span", null, `${fixed(target.peak.similarity, 3)} where it was found`, target.rival && ` · ${fixed(target.rival.similarity, 3)} at ${partner} (${where})`),
      h("span", null, `${fixed(mirrored.peak.similarity, 3)} in the mirrored target`, mirrored.rival && ` · ${fixed(mirrored.rival.similarity, 3)} at ${partner}`),
      h("span", { className: "sfs-dim" }, verdict),
      h(
        "div",
        { ref: place, className: "sfs-canvas sfc-canvas" },
        h(
          "svg",
          { width: box.width, height, role: "img", "aria-label": "The mirrored target", "data-cy": "selfsame-mirrored" },
          h("image", { href: source(filepath), ...box, transform: `translate(${box.width} 0) scale(-1 1)`, preserveAspectRatio: "none" }),
          h(Heat, { grid: mirrored, box, id: "selfsame-heat-mirrored" }),
          h(HeatMarks, { grid: mirrored, partner, box })
        )
      ),
      h("div", { className: "sfs-row sfs-dim" }, h(Scale, { name: "similarity", low: target.low, high: target.high })),
      heat.notice && h("span", { className: "sfs-dim" }, heat.notice)
    );
  }

  // ------------------------------------------------------------------------------------------------------------ table

  /** The matches in words and figures; a row that the pointer or the keyboard is on lights its line up. */
  function MatchTable({ matches, colours, saved, focus, chosen, onHover, onChoose }) {
    const known = (name) => matches.some((match) => match[name] !== null);
    const judged = known("error_type");
    const columns = ["keypoint", judged && "what became of it", "conf.", known("distance") && "off by", known("suspicion") && "suspicion", known("risk") && "risk"].filter(Boolean);
    const titles = { "conf.": "Confidence: the similarity of the match", "off by": "Distance from the true place, as a share of the image or the box", suspicion: "Mean rank of the scores that need no annotations", risk: "Highest where a confident match took another part's place" };
    const keys = (name) => (event) => {
      const to = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      if (event.key !== "Enter" && !to) return;
      event.preventDefault();
      event.stopPropagation();
      if (!to) return onChoose(name);
      const row = event.currentTarget[to];
      if (row) row.focus();
    };
    return h(
      "div",
      { className: "sfs-lines sfc-table" },
      h(
        "table",
        { "data-cy": "selfsame-matches" },
        h("caption", null, "Enter on a row shows what its keypoint resembles"),
        h("thead", null, h("tr", null, columns.map((name) => h("th", { key: name, scope: "col", title: titles[name], className: { suspicion: "sfc-seldom", "what became of it": "sfc-words" }[name] }, name)))),
        h(
          "tbody",
          null,
          matches.map((match) =>
            h(
              "tr",
              { key: match.name, tabIndex: 0, "data-cy": `selfsame-row-${match.name}`, "aria-current": chosen === match.name, className: focus === match.name ? "sfs-lit" : "", onMouseEnter: () => onHover(match.name), onMouseLeave: () => onHover(null), onFocus: () => onHover(match.name), onBlur: () => onHover(null), onClick: () => onChoose(match.name), onKeyDown: keys(match.name) },
              h("th", { scope: "row" }, match.name, match.label_suspect !== null && h("span", { className: "sfc-suspect", title: `Left and right may be exchanged in the annotation (${fixed(match.label_suspect, 2)})` }, h(Icon, { name: "report" }))),
              judged && h("td", { className: "sfc-words" }, h(Swatch, { type: match.error_type }), typeOf(match.error_type)[0]),
              h("td", null, saved.colour !== "type" && h("i", { className: "sfs-swatch", style: { background: colours.of(match) } }), fixed(match.similarity, 3)),
              known("distance") && h("td", null, fixed(match.distance, 3)),
              known("suspicion") && h("td", { className: "sfc-seldom" }, fixed(match.suspicion, 2)),
              known("risk") && h("td", null, fixed(match.risk, 2))
            )
          )
        )
      )
    );
  }

  // ----------------------------------------------------------------------------------------------------------- labels

  /** Left and right exchanged in the annotation of one image, and that undone. */
  function Labels({ review, chosen }) {
    const { opened, data } = review;
    const { pair, matches, couples, exchanges, stale } = opened;
    const [side, setSide] = useState(pair.suspect_side || "source");
    const [told, setTold] = useState(null);
    useEffect(() => {
      setSide(pair.suspect_side || "source");
      setTold(null);
    }, [pair.pair_id]);
    if (!couples.length && !exchanges.count) return null;
    const suspects = matches.filter((match) => match.label_suspect !== null && match.partner).sort((one, other) => other.label_suspect - one.label_suspect);
    const match = matches.find((one) => one.name === chosen && one.partner) || suspects[0];
    const partners = match && couples.find((couple) => couple.includes(match.name));
    const exchange = async (partners) => {
      const answer = await review.ask((call, pair) => call("exchange", { ...pair, side, partners }));
      if (answer) setTold(`Exchanged in the ${answer.exchanged.side}: ${plural(answer.exchanged.pairs, "pair shows", "pairs show")} this image.`);
    };
    const undo = async () => {
      const answer = await review.ask((call, pair) => call("undo_exchange", pair));
      if (answer) setTold(`Taken back in the ${answer.undone.side} of this pair.`);
    };
    const last = exchanges.last && `${exchanges.last.couples.map((couple) => couple.join(" ↔ ")).join(", ")} in a ${exchanges.last.side}`;
    return h(
      "section",
      { className: "sfs-card", "data-cy": "selfsame-labels", "aria-label": "Labels" },
      h(
        "div",
        { className: "sfs-row sfs-wrap" },
        h("b", null, "Wrong label?"),
        pair.suspect_side && h("span", { className: "sfc-suspect sfs-row" }, h(Icon, { name: "report" }), `the ${pair.suspect_side} is under suspicion`),
      ),
      h(
        "div",
        { className: "sfs-row sfs-wrap" },
        h(Choice, { cy: "selfsame-exchange-side", label: "Image", value: side, options: [["source", "source"], ["target", "target"]], onChange: setSide }),
        h(Button, { cy: "selfsame-exchange", icon: "swap_horiz", label: partners ? `Exchange ${partners.join(" ↔ ")}` : "Exchange left and right", off: !partners, title: partners ? "Exchange these two in the annotation of the image, on all its pairs and on the original" : "Choose a keypoint that has a mirror partner", onClick: () => exchange(partners) }),
        couples.length > 1 && h(Button, { cy: "selfsame-exchange-all", label: `All ${couples.length} couples`, title: couples.map((couple) => couple.join(" ↔ ")).join(", "), onClick: () => exchange(null) }),
        h(Button, { cy: "selfsame-undo-exchange", icon: "undo", label: "Undo exchange", off: !exchanges.count, title: last ? `The last of ${count(exchanges.count)}: ${last}` : "Nothing was exchanged", onClick: undo })
      ),
      h("span", { role: "status", "data-cy": "selfsame-exchanged" }, told),
      stale &&
        h(
          "div",
          { className: "sfs-row sfs-wrap", "data-cy": "selfsame-stale" },
          h("span", { className: "sfs-dim" }, "Labels or files have changed since this pair was matched; “Compute correspondences” matches such pairs again, and no others."),
          h(Button, { cy: "selfsame-match-stale", icon: "autorenew", label: "Match again", onClick: () => review.prompt("compute_correspondences", data.run.form) })
        )
    );
  }

  // ---------------------------------------------------------------------------------------------------------- figures

  /** A table, which scrolls by itself where it is wider than the panel. */
  function Table({ cy, caption, heads, rows }) {
    return h(
      "section",
      null,
      h("div", { className: "sfs-dim" }, caption),
      h(
        "div",
        { className: "sfc-scroll", tabIndex: 0, role: "region", "aria-label": caption },
        h(
          "table",
          { "data-cy": cy, "aria-label": caption },
          h("thead", null, h("tr", null, heads.map((head, i) => h("th", { key: i, scope: "col", title: head[1] }, head[0])))),
          h("tbody", null, rows.map((row, i) => h("tr", { key: i }, row.map((cell, j) => h(j ? "td" : "th", { key: j, scope: j ? undefined : "row" }, cell)))))
        )
      )
    );
  }

  const part = (row, name) => (!(name in row) ? "all" : row[name] === null || row[name] === "" ? "–" : row[name] === true ? "yes" : row[name] === false ? "no" : String(row[name]));
  const turn = (eighths) => (eighths === null ? "all" : `${45 * eighths}°`);

  /** The latest evaluation: every PCK with its flavour in words, KAP, and the types of errors. */
  function Figures({ review }) {
    const { data } = review;
    const [found, setFound] = useState(null);
    const [metric, setMetric] = useState(null);
    useEffect(() => {
      setFound(null);
      review.guarded(() => review.call("figures", { key: data.key }).then((answer) => setFound(answer.evaluation || "none")));
    }, [data]);
    const evaluate = (form) => review.prompt("evaluate_correspondences", { key: data.key, ...form });
    if (!found) return h("p", { className: "sfs-dim" }, "Loading ...");
    if (found === "none")
      return h("div", { className: "sfs-empty", "data-cy": "selfsame-figures" }, h("p", null, "This run has not been evaluated yet."), h(Button, { cy: "selfsame-figures-evaluate", label: "Evaluate", icon: "analytics", strong: true, onClick: () => evaluate() }));
    const { details, counts } = found;
    const whole = details.pck.filter((row) => row.category === null && row.azimuth_difference === null);
    const chosen = whole.some((row) => row.metric === metric) ? metric : (whole[0] || {}).metric;
    const split = details.pck.filter((row) => row.metric === chosen && !(row.category === null && row.azimuth_difference === null));
    const kinds = Object.keys(TYPES).filter((type) => details.errors.some((row) => row[type]));
    const errors = [...new Set(details.errors.map((row) => row.metric))];
    const kap = [...details.kap.map((row) => [row.metric, percent(row.value)]), ...details.kap_per_category.map((row) => [row.category || "–", percent(row.value)])];
    return h(
      "main",
      { className: "sfs-stage", "data-cy": "selfsame-figures" },
      h(
        "div",
        { className: "sfs-row sfs-wrap" },
        h("b", null, `${count(counts.done)} of ${plural(counts.total, "pair")} judged`),
        h("span", { className: "sfs-dim sfs-grow", title: found.notices.join("\n") }, [`run ${found.key}`, found.time.replace("T", " "), counts.stale && `${count(counts.stale)} changed since they were matched`, counts.unjudged && `${count(counts.unjudged)} without annotations`].filter(Boolean).join(" · ")),
        h(Button, { cy: "selfsame-export", label: "Export", icon: "download", title: "A CSV and a Markdown file of all figures", onClick: () => evaluate({ download: true }) })
      ),
      h(Table, { cy: "selfsame-pck", caption: "PCK of all pairs, in percent", heads: [["which PCK"], ["%"], ["keypoints"], ["pairs"]], rows: whole.map((row) => [row.metric, percent(row.value), count(row.n_points), count(row.n_images)]) }),
      split.length > 0 && h("div", { className: "sfc-wide" }, h(Choice, { cy: "selfsame-metric", label: "By category and viewpoint", value: chosen, options: whole.map((row) => [row.metric, row.metric]), onChange: setMetric })),
      split.length > 0 && h(Table, { cy: "selfsame-pck-split", caption: `${chosen}, in percent`, heads: [["category"], ["viewpoints apart"], ["%"], ["keypoints"]], rows: split.map((row) => [row.category === null ? "all" : row.category || "–", turn(row.azimuth_difference), percent(row.value), count(row.n_points)]) }),
      kap.length ? h(Table, { cy: "selfsame-kap", caption: "KAP, in percent", heads: [["which"], ["%"]], rows: kap }) : h("p", { className: "sfs-dim", "data-cy": "selfsame-no-kap" }, found.notices.find((notice) => notice.startsWith("No KAP")) || "No KAP."),
      errors.map((metric) =>
        h(Table, {
          key: metric,
          cy: "selfsame-errors",
          caption: `${metric}, in percent of the keypoints of a row`,
          heads: [["category"], ["geometry-aware", "Whether the object has another part of the same kind in sight"], ["viewpoints apart"], ["keypoints"], ...kinds.map((type) => [typeOf(type)[0], typeOf(type)[1]])],
          rows: details.errors.filter((row) => row.metric === metric).map((row) => [part(row, "category"), part(row, "geometry_aware"), "azimuth_difference" in row && row.azimuth_difference !== null ? turn(row.azimuth_difference) : part(row, "azimuth_difference"), count(row.n), ...kinds.map((type) => percent(row[`share_${type}`]))]),
        })
      ),
      details.inversions.length > 0 && h(Table, { cy: "selfsame-inversions", caption: "Inverted pairs: exchanging mirror partners mends them", heads: [["category"], ["pairs that can be judged"], ["inverted"], ["%"]], rows: details.inversions.map((row) => [row.category || "–", count(row.n_pairs), count(row.n_inverted), percent(row.share_inverted)]) })
    );
  }

  // ------------------------------------------------------------------------------------------------------------ views

  function Filters({ review }) {
    const { saved, data } = review;
    const { page } = data;
    const choice = (name, label, options) => h(Choice, { cy: `selfsame-${name}`, label, value: saved[name] || "", options, onChange: (value) => review.turn({ [name]: value, page: 0 }) });
    const categories = Object.entries(page.categories).map(([name, n]) => [name, `${name} (${count(n)})`]);
    const types = Object.entries(page.types).map(([name, n]) => [name, `${typeOf(name)[0]} (${count(n)})`]);
    return h(
      "div",
      { className: "sfs-row sfs-wrap sfs-filters" },
      h(Choice, { cy: "selfsame-sort", label: "Order", value: page.sort, options: page.sorts.map((name) => [name, SORTS[name]]), onChange: (sort) => review.turn({ sort, page: 0 }) }),
      types.length > 0 && choice("kind", "Any match", [["", "Whatever"], ...types]),
      categories.length > 1 && choice("category", "Category", [["", "All"], ...categories]),
      choice("decision", "Decision", [["", "All"], ["undecided", "Undecided"], ["ok", "Right"], ["swap", "Swapped"]]),
      page.suspects > 0 && h(Tick, { cy: "selfsame-suspects", label: `Label suspects (${count(page.suspects)})`, title: "Pairs in which left and right may be exchanged in an annotation", value: saved.suspects, onChange: (suspects) => review.turn({ suspects, page: 0 }) })
    );
  }

  function Worst({ pair }) {
    if (pair.error) return h("span", { className: "sfs-kind sfs-verdict-failed" }, "failed");
    if (!pair.worst_type) return null;
    const [short, words, colour] = typeOf(pair.worst_type);
    return h("span", { className: "sfs-kind", title: `The gravest: ${words}`, style: { "--hue": colour } }, short);
  }

  /** What is known of the open pair, in a line. */
  function facts(pair, run) {
    const figures = [["mean confidence", pair.score, 3], ["mutual", pair.consistency, 2], ["risk", pair.risk, 2], ["suspicion", pair.suspicion, 2], ["worst error", pair.worst, 3]];
    return [
      ...figures.filter(([, value]) => value !== null).map(([name, value, digits]) => `${name} ${fixed(value, digits)}`),
      pair.view && pair.view !== "identity" && `source turned: ${pair.view}`,
      pair.inverted && "inverted: exchanging mirror partners mends it",
      `correct within ${run.threshold}`,
      run.model,
    ].filter(Boolean).join(" · ");
  }

  function Stage({ review, act, heat, setHeat, chosen, onChoose }) {
    const { opened, saved, data } = review;
    const [hover, setHover] = useState(null);
    useEffect(() => setHover(null), [opened]);
    const { pair } = opened;
    const by = opened.matches.some((match) => match[saved.colour === "type" ? "error_type" : saved.colour] !== null) ? saved.colour : "type";
    const matches = useMemo(() => opened.matches.filter((match) => match.similarity === null || match.similarity >= saved.least), [opened, saved.least]);
    const colours = colouring(matches, by);
    const focus = hover || (heat ? heat.name : null);
    const shown = { ...saved, colour: by };
    const [icon, said] = DECISIONS[pair.decision] || [];
    const button = (letter, action, label, icon, options) => h(Button, { key: letter, cy: `selfsame-action-${action}`, hotkey: letter.toUpperCase(), label, icon, onClick: act[letter], ...options });
    const hidden = opened.matches.length - matches.length;
    const slider = { type: "range", min: 0, max: 1, step: 0.01, value: saved.least, "data-cy": "selfsame-least", "aria-label": "Least confidence shown", onChange: (event) => review.save({ least: Number(event.target.value) }) };
    return h(
      "main",
      { className: "sfs-stage", "data-cy": "selfsame-stage" },
      h(
        "div",
        { className: "sfs-row sfs-wrap sfs-head" },
        h("b", { "data-cy": "selfsame-open-pair", "data-id": pair.pair_id, "data-decision": pair.decision || "" }, pair.members.map((member) => fileName(member.filepath)).join(" – ")),
        pair.category && h("span", { className: "sfs-dim" }, pair.category),
        h(Worst, { pair }),
        said && h("span", { className: `sfs-said-${pair.decision} sfs-row` }, h(Icon, { name: icon }), said),
        h("span", { className: "sfs-grow" }),
        h(Undo, { review })
      ),
      h(
        "div",
        { className: "sfs-row sfs-wrap sfs-actions" },
        button("o", "ok", "Right", "check", { strong: true, title: "Left and right are as they should be" }),
        button("s", "swap", "Swapped", "flip", { title: "Left and right, or like parts, are confused" }),
        button("c", "clear", "Clear", "backspace", { off: !pair.decision, title: "Take the decision on this pair back" }),
        h("span", { className: "sfs-grow" }),
        h(
          "span",
          { className: "sfs-row sfs-wrap" },
          h(Tick, { cy: "selfsame-mirrored-source", label: "Mirrored source", title: "Draw the source mirrored (M)", value: saved.mirrored, onChange: (mirrored) => review.save({ mirrored }) }),
          h(Choice, { cy: "selfsame-colour", label: "Colours", value: by, options: Object.entries(COLOURS).filter(([name]) => name === "type" || opened.matches.some((match) => match[name] !== null)), onChange: (colour) => review.save({ colour }) }),
          h("label", { className: "sfs-choice", title: "Hide matches of less confidence" }, h("span", null, `Confidence from ${fixed(saved.least, 2)}`), h("input", slider))
        )
      ),
      pair.error && h("div", { className: "sfs-error" }, h("span", { className: "sfs-grow" }, pair.error)),
      h(
        "div",
        { className: "sfc-beside" },
        h(
          "div",
          { className: "sfc-main" },
          h(PairPicture, { opened, matches, colours, saved: shown, heat, focus, onHover: setHover, onChoose, onOpen: (side) => review.show({ sample: side.id, group: side.group }) }),
          matches.length > 0 && h(Legend, { matches, by, colours }),
          h("div", { className: "sfs-dim", "data-cy": "selfsame-facts" }, facts(pair, data.run)),
          hidden > 0 && h("div", { className: "sfs-dim", "data-cy": "selfsame-hidden" }, `${plural(hidden, "match is", "matches are")} below the confidence shown.`)
        ),
        h(
          "div",
          { className: "sfc-main" },
          heat && h(Rival, { opened, heat, onClose: () => setHeat(null) }),
          h(Labels, { review, chosen }),
          matches.length > 0 && h(MatchTable, { matches, colours, saved: shown, focus, chosen, onHover: setHover, onChoose }),
        )
      )
    );
  }

  const DEFAULTS = { sort: "", category: "", kind: "", decision: "", suspects: false, tab: "pairs", mirrored: false, colour: "type", least: 0 };

  function CorrespondencesView({ schema }) {
    const review = usePairs(schema.view, DEFAULTS, ["sort", "category", "kind", "decision", "suspects"]);
    const { data, saved, opened } = review;
    const [heat, setHeat] = useState(null);
    const [chosen, setChosen] = useState(null);
    const pairId = opened && opened.pair.pair_id;
    useEffect(() => {
      setHeat(null);
      setChosen(null);
    }, [pairId]);
    const shown = useRef(null);
    shown.current = pairId;
    const choose = async (name) => {
      setChosen(name);
      setHeat(null);
      const answer = await review.ask((call, pair) => call("heatmap", { ...pair, name }));
      if (answer && shown.current === pairId) setHeat(answer); // another pair may have been opened meanwhile
    };
    const act = {
      o: () => review.decide("ok"),
      s: () => review.decide("swap"),
      c: () => opened && opened.pair.decision && review.decide("clear"),
      m: () => review.save({ mirrored: !saved.mirrored }),
      h: () => setHeat(null),
    };
    const ready = data && data.page;
    const { pairs, ok, swap } = (ready && data.progress) || {};
    const figures = saved.tab === "figures";
    const tab = (name, label) => h("button", { key: name, type: "button", role: "tab", "aria-selected": saved.tab === name, "data-cy": `selfsame-tab-${name}`, className: saved.tab === name ? "sfs-open" : "", onClick: () => review.save({ tab: name }) }, label);
    const run = ready && data.run;
    const showView = (name) => review.guarded(() => review.call("show_view", { key: data.key, name }));
    const head = ready && [
      h("style", { key: "style" }, STYLE),
      h(RunChoice, { key: "run", review }),
      h(Decided, { key: "progress", pairs, done: ok + swap, title: `${count(ok)} right, ${count(swap)} swapped` }),
      h("nav", { key: "tabs", className: "sfs-tabs", role: "tablist", "aria-label": "Parts of the panel" }, tab("pairs", "Pairs"), tab("figures", "Figures")),
      h("span", { key: "gap", className: "sfs-grow" }),
      !data.current && run.views.length > 0 && h(Choice, { key: "views", cy: "selfsame-views", label: "Grid shows", value: "", options: [["", "choose ..."], ...run.views.map((name) => [name, name.replace(`${run.key}: `, "")]), ["*", "everything"]], onChange: (name) => showView(name === "*" ? null : name) }),
      ...(data.current ? [] : pairOptions(review)),
      h(Button, { key: "symmetry", cy: "selfsame-find-symmetry", label: run.outdated ? "Rank again" : "Find symmetry errors", icon: "flip", strong: !run.ranked || run.outdated, title: run.outdated ? "Pairs were matched anew since risks were told" : "Rank pairs and keypoints by the risk that left and right were confused", onClick: () => review.prompt("find_symmetry_errors", { key: data.key }) }),
      h(Button, { key: "evaluate", cy: "selfsame-evaluate", label: "Evaluate", icon: "analytics", title: "PCK, KAP and types of errors, as a report", onClick: () => review.prompt("evaluate_correspondences", { key: data.key }) }),
      h(Button, { key: "again", cy: "selfsame-compute-again", label: "Compute again", icon: "autorenew", title: "Match what has changed, or choose other settings", onClick: () => review.prompt("compute_correspondences", run.form) }),
      ...originButtons(review),
    ];
    const describe = (pair) => [
      h(Worst, { key: "worst", pair }),
      pair.label_suspect !== null && h("span", { key: "suspect", className: "sfc-suspect", title: `Left and right may be exchanged in the annotation of the ${pair.suspect_side}` }, h(Icon, { name: "report" })),
      h("span", { key: "category", className: "sfs-grow sfs-dim" }, pair.category),
      h("span", { key: "value", title: SORTS[data.page.sort] }, fixed(pair[data.page.sort === "label" ? "label_suspect" : data.page.sort], 2)),
    ];
    const left = ready && !figures && [h(Filters, { key: "filters", review }), h(PairList, { key: "list", review, decisions: DECISIONS, describe })];
    const right = ready && (figures ? h(Figures, { review }) : opened && h(Stage, { review, act, heat, setHeat, chosen, onChoose: choose }));
    const keys = [["O", "right"], ["S", "swapped"], ["C", "clear"], ["U", "undo"], ["J / P", "next, previous"], ["M", "mirror"], ["H", "heat map off"]];
    const said = (one) => [`${count(one.ok)} right`, `${count(one.swap)} swapped`];
    const start = data && data.derived && h(PairHome, { review, makers: [], facts: said });
    // Nothing is to be decided on a pair that is out of sight.
    return h(Frame, { review, onKeyDown: figures ? undefined : keyHandler(review, act), head, left, right, keys: ready && !figures ? keys : null, name: "correspondences", start });
  }

  const STYLE = `
  .sfc-beside { display: grid; grid-template-columns: minmax(0, 1fr); gap: 10px; min-width: 0; align-items: start; }
  .sfc-main { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
  .sfc-canvas { overflow: hidden; }
  .sfc-match { cursor: pointer; } .sfc-match .sfc-reach { stroke: transparent; stroke-width: 12; }
  .sfc-stroke { stroke: var(--tone); stroke-width: 2; fill: none; } line.sfc-under { stroke: #000; stroke-width: 4; opacity: .4; }
  .sfc-lit .sfc-stroke { stroke-width: 4; } .sfc-faint { opacity: .2; }
  .sfc-filled { fill: var(--tone); } .sfc-rim { fill: none; stroke: #000; stroke-width: 2.5; } .sfc-start { stroke: #000; stroke-width: 1.2; }
  .sfc-open { fill: none; stroke: var(--tone); stroke-width: 2.6; } path.sfc-under { fill: none; stroke: #000; stroke-width: 5; }
  .sfc-truth { fill: none; stroke: var(--tone, currentColor); stroke-width: 2; } .sfc-truth-under { fill: none; stroke: #000; stroke-width: 4; opacity: .55; }
  .sfc-off { stroke: var(--tone); stroke-width: 2; stroke-dasharray: 2 3; }
  .sfc-heat { pointer-events: none; }
  .sfc-peak, .sfc-rival { pointer-events: none; } .sfc-peak circle, .sfc-rival circle { fill: none; stroke: #fff; stroke-width: 2; } .sfc-rival circle { stroke-dasharray: 4 3; }
  .sfc-peak circle.sfc-under, .sfc-rival circle.sfc-under { stroke: #000; stroke-width: 4; stroke-dasharray: none; opacity: .6; }
  .sfc-peak text, .sfc-rival text { font-size: 12px; font-weight: 600; fill: #fff; stroke: #000; stroke-width: 3px; paint-order: stroke; }
  .sfs .sfc-swatch { display: inline-block; flex: none; vertical-align: middle; cursor: inherit; }
  .sfc-legend { display: flex; flex-wrap: wrap; gap: 3px 12px; margin: 0; padding: 0; list-style: none; font-size: 12px; } .sfc-legend li { display: inline-flex; align-items: center; gap: 5px; }
  .sfc-scale { display: inline-block; width: 80px; height: 8px; border-radius: 4px; background: linear-gradient(90deg, ${RAMP.map((tone) => `rgb(${tone.join(" ")})`).join(", ")}); }
  .sfc-suspect { color: #e69f00; display: inline-flex; align-items: center; gap: 4px; vertical-align: middle; }
  .sfc-table { max-height: 420px; } .sfc-table table { width: 100%; } .sfc-table tbody tr { cursor: pointer; } .sfc-table tbody th { text-align: left; color: inherit; }
  .sfc-table tr:focus-visible { box-shadow: inset 0 0 0 2px var(--accent); } .sfc-table tr.sfs-lit th { background: var(--softer); } .sfc-table tr[aria-current=true] th { box-shadow: inset 3px 0 0 var(--accent); }
  .sfs-correspondences th, .sfs-correspondences td { padding: 3px 6px; } .sfs-correspondences .sfc-words { text-align: left; white-space: nowrap; } .sfc-words svg { margin-right: 5px; }
  .sfs-correspondences caption { caption-side: top; text-align: left; color: var(--dim); padding: 2px 0 4px; }
  .sfc-scroll { overflow-x: auto; max-width: 100%; margin-top: 4px; } .sfs-correspondences thead th:first-child { text-align: left; } .sfc-scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; } .sfc-scroll th[scope=row] { text-align: left; color: inherit; }
  .sfs-correspondences input[type=range] { width: 90px; accent-color: var(--accent); margin: 0; }
  .sfs-said-ok { color: var(--keep); } .sfs-said-swap { color: #e69f00; }
  @container (min-width: 1250px) { .sfc-beside { grid-template-columns: minmax(0, 1fr) minmax(400px, 34%); } .sfc-table { max-height: none; } }
  .sfs-correspondences .sfs-choice { min-width: 0; max-width: 100%; } .sfs-correspondences .sfs-choice select { min-width: 0; flex: 0 1 auto; text-overflow: ellipsis; }
  .sfc-wide select { max-width: 420px; }
  @container (max-width: 899px) { .sfs-correspondences .sfs-top .sfs-button:not(.sfs-strong) span:not(.sfs-icon) { display: none; } }
  @container (max-width: 519px) { .sfc-words svg, .sfc-seldom { display: none; } }
  `;

  views.Correspondences = CorrespondencesView;
})();
