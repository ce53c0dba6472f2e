/**
 * The view of the Matching panel: pairs of images, the masks of what they have in common, and the strongest pairs of
 * points as lines. Its Python side is `fiftyone_plugin/panels/matching.py`; what it is made of is in `selfsame.js`. What
 * other views of pairs share with it, it puts into `window.__selfsame__`.
 *
 * @typedef {{id: string, sample_id: string, filepath: string, box: null}} Member
 * @typedef {{pair_id: string, score: number|null, verdict: string|null, kind: string, decision: string|null,
 *   error: string|null, members: Member[], label?: string, product?: string, product_verdict?: string}} Pair
 * @typedef {{id: string, group: string, filepath: string, mask: string|null, box: null}} Side
 * @typedef {{pair: Pair, sides: Side[], lines: number[][]}} Opened `lines`: x, y, x, y (shares of the pictures), confidence
 */
(function () {
  "use strict";

  const { useEffect, useMemo, useRef, useState } = window.React;
  const { h, useCall, useGuard, useSaved, useNaturalSize, keyHandler, source, count, plural, fixed, fileName } = window.__selfsame__;
  const { Button, Choice, Frame, Icon, Pager, RunChoice, Thumb, Tick, Undo, views } = window.__selfsame__;

  const KINDS = { match: "Match", no_match: "No match", nothing: "Nothing in common", failed: "Failed" };
  const DECISIONS = { accept: ["check_circle", "accepted"], reject: ["cancel", "rejected"] };
  const GAP = 14;
  const MOST_HEIGHT = 460;

  // --------------------------------------------------------------------------------------------------------- pictures

  /** Width of an element, as it changes. */
  function useWidth() {
    const place = useRef(null);
    const [width, setWidth] = useState(600);
    useEffect(() => {
      const observer = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
      observer.observe(place.current);
      return () => observer.disconnect();
    }, []);
    return [place, width];
  }

  /** Where both pictures go, in pixels: side by side and of one height, or in a narrow panel one above the other. */
  function placed(sizes, width) {
    const [one, other] = sizes.map(([w, b]) => w / b);
    if (width < 420) {
      const heights = [one, other].map((aspect) => Math.min(width / aspect, 0.75 * MOST_HEIGHT));
      const boxes = [one, other].map((aspect, i) => ({ x: (width - aspect * heights[i]) / 2, y: i * (heights[0] + GAP), width: aspect * heights[i], height: heights[i] }));
      return { boxes, height: heights[0] + GAP + heights[1] };
    }
    const height = Math.min((width - GAP) / (one + other), MOST_HEIGHT);
    const start = (width - GAP - height * (one + other)) / 2;
    return { boxes: [{ x: start, y: 0, width: height * one, height }, { x: start + height * one + GAP, y: 0, width: height * other, height }], height };
  }

  /** From red for the least of the lines shown to green for the surest. */
  const tone = (share) => `hsl(${8 + 132 * share} 85% 52%)`;

  function tones(lines) {
    const values = lines.map((line) => line[4]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { low, high, of: (value) => tone(high > low ? (value - low) / (high - low) : 1) };
  }

  /** A picture with what the images have in common left bright; the rest is dimmed. */
  function Side({ side, box, masked, number, onOpen }) {
    const src = side.mask && source(side.mask);
    const there = useNaturalSize(src || "", Boolean(src));
    const id = `sfs-mask-${side.id}`;
    return h(
      "g",
      { onDoubleClick: onOpen, "data-cy": `selfsame-side-${number}` },
      h("title", null, side.filepath),
      h("image", { href: source(side.filepath), ...box, preserveAspectRatio: "none" }),
      masked && there && [
        h("mask", { key: "mask", id, maskUnits: "userSpaceOnUse", ...box }, h("rect", { ...box, fill: "#fff" }), h("image", { href: src, ...box, preserveAspectRatio: "none", style: { filter: "invert(1)" } })),
        h("rect", { key: "dim", ...box, className: "sfs-dimmed", mask: `url(#${id})`, "data-cy": `selfsame-mask-${number}` }),
      ]
    );
  }

  function Lines({ lines, boxes, hover, onHover }) {
    const colour = tones(lines);
    const at = (box, x, y) => [box.x + x * box.width, box.y + y * box.height];
    return lines.map((line, i) => {
      const [x1, y1] = at(boxes[0], line[0], line[1]);
      const [x2, y2] = at(boxes[1], line[2], line[3]);
      const names = ["sfs-line", hover === i && "sfs-lit", hover !== null && hover !== i && "sfs-faint"];
      return h(
        "g",
        { key: i, className: names.filter(Boolean).join(" "), "data-cy": `selfsame-line-${i}`, style: { "--tone": colour.of(line[4]) }, onMouseEnter: () => onHover(i), onMouseLeave: () => onHover(null) },
        h("title", null, `${i + 1}: confidence ${fixed(line[4], 3)}`),
        h("line", { x1, y1, x2, y2, className: "sfs-reach" }),
        h("line", { x1, y1, x2, y2 }),
        h("circle", { cx: x1, cy: y1, r: 3.5 }),
        h("circle", { cx: x2, cy: y2, r: 3.5 })
      );
    });
  }

  /** Both pictures of a pair, with masks and lines. */
  function PairPicture({ opened, lines, masked, hover, onHover, onOpen }) {
    const [place, width] = useWidth();
    const known = opened.sides.map((side) => useNaturalSize(source(side.filepath), true));
    const { boxes, height } = placed(known.map((size) => size || [4, 3]), Math.max(width, 160));
    return h(
      "div",
      { ref: place, className: "sfs-canvas" },
      h(
        "svg",
        { width: "100%", height, role: "img", "aria-label": `${fileName(opened.sides[0].filepath)} and ${fileName(opened.sides[1].filepath)}, ${plural(lines.length, "pair")} of points`, "data-cy": "selfsame-picture" },
        opened.sides.map((side, i) => h(Side, { key: side.id, side, box: boxes[i], masked, number: i, onOpen: () => onOpen(side) })),
        lines.length > 0 && h(Lines, { lines, boxes, hover, onHover })
      )
    );
  }

  /** The lines in words and figures; a row that the pointer or the keyboard is on lights its line up. */
  function LineTable({ opened, lines, hover, onHover }) {
    const sizes = opened.sides.map((side) => useNaturalSize(source(side.filepath), true) || [0, 0]);
    const colour = tones(lines);
    const point = (size, x, y) => `${Math.round(x * size[0])}, ${Math.round(y * size[1])}`;
    return h(
      "div",
      { className: "sfs-lines" },
      h(
        "table",
        { "data-cy": "selfsame-lines" },
        h("thead", null, h("tr", null, ["#", "left x, y", "right x, y", "confidence"].map((name) => h("th", { key: name, scope: "col" }, name)))),
        h(
          "tbody",
          null,
          lines.map((line, i) =>
            h(
              "tr",
              { key: i, tabIndex: 0, className: hover === i ? "sfs-lit" : "", onMouseEnter: () => onHover(i), onMouseLeave: () => onHover(null), onFocus: () => onHover(i), onBlur: () => onHover(null) },
              h("td", null, i + 1),
              h("td", null, point(sizes[0], line[0], line[1])),
              h("td", null, point(sizes[1], line[2], line[3])),
              h("td", null, h("i", { className: "sfs-swatch", style: { background: colour.of(line[4]) } }), fixed(line[4], 3))
            )
          )
        )
      )
    );
  }

  // ------------------------------------------------------------------------------------------------------------- list

  function Verdict({ pair }) {
    return h("span", { className: `sfs-kind sfs-verdict-${pair.kind}` }, KINDS[pair.kind]);
  }

  /** A pair in the list, with what is known of it; `said` is the icon of a decision and what it means. */
  function PairRow({ pair, open, said, children, onOpen }) {
    const row = useRef(null);
    useEffect(() => {
      if (open && row.current) row.current.scrollIntoView({ block: "nearest", inline: "nearest" });
    }, [open]);
    const names = ["sfs-entry", open && "sfs-open", pair.decision && "sfs-decided"].filter(Boolean).join(" ");
    return h(
      "div",
      { ref: row, className: names, role: "button", "aria-current": Boolean(open), "data-cy": `selfsame-pair-${pair.pair_id}`, title: pair.error || pair.members.map((member) => fileName(member.filepath)).join(" and "), onClick: onOpen },
      h("div", { className: "sfs-strip sfs-two" }, pair.members.map((member, i) => h("div", { key: i }, h(Thumb, { member, cover: true })))),
      h("div", { className: "sfs-facts" }, children, said && h("span", { className: `sfs-said-${pair.decision}`, title: said[1] }, h(Icon, { name: said[0] })))
    );
  }

  /** The page of the list that is open; `decisions` as of `PairRow`, by decision, and `describe` says what is known. */
  function PairList({ review, decisions, describe }) {
    const { data, opened } = review;
    const rows = data.page.pairs.map((pair) =>
      h(PairRow, { key: pair.pair_id, pair, open: opened && opened.pair.pair_id === pair.pair_id, said: decisions[pair.decision], onOpen: () => review.openPair(pair.pair_id) }, describe(pair))
    );
    return [
      h("div", { key: "list", className: "sfs-list", "data-cy": "selfsame-list" }, rows.length ? rows : h("p", { className: "sfs-dim" }, "No such pair.")),
      h(Pager, { key: "pager", page: data.page, word: "pair", onPage: (page) => review.turn({ page }) }),
    ];
  }

  // ------------------------------------------------------------------------------------------------------------ state

  /**
   * State and actions of a review of pairs: run, list, open pair, decisions.
   * @param {object} view the schema's view
   * @param {object} defaults of what outlives a reload, `filters` of the list among them
   * @param {string[]} filters names of what lists are asked for by
   */
  function usePairs(view, defaults, filters) {
    const call = useCall(view);
    const { root, error, setError, busy, guarded } = useGuard();
    const [saved, save] = useSaved({ key: null, pair: null, page: 0, follow: false, advance: true, ...defaults });
    const [data, setData] = useState(null);
    const [opened, setOpened] = useState(null);
    const current = useRef({});
    current.current = { saved, data, opened };

    const listed = (changes) => {
      const all = { ...current.current.saved, ...changes };
      return Object.fromEntries(["key", "page", ...filters].map((name) => [name, all[name]]));
    };
    const openPair = (pair_id) =>
      guarded(async () => {
        const { saved, data } = current.current;
        setOpened(await call("open_pair", { key: data.key, pair_id, follow: saved.follow }));
        save({ pair: pair_id });
      });
    const load = (changes) =>
      guarded(async () => {
        if (changes) save(changes);
        const answer = await call("overview", { ...listed(changes), fresh: true });
        setData(answer);
        const ids = answer.page ? answer.page.pairs.map((row) => row.pair_id) : [];
        const last = current.current.saved.pair;
        const pair_id = (answer.page && answer.current) || (ids.includes(last) ? last : ids[0]);
        if (!pair_id) return setOpened(null);
        save({ key: answer.key, pair: pair_id });
        setOpened(await call("open_pair", { key: answer.key, pair_id }));
      });
    const turn = (changes) =>
      guarded(async () => {
        save(changes);
        const answer = await call("list_pairs", { ...listed(changes), key: current.current.data.key });
        setData((before) => ({ ...before, ...answer }));
        save({ page: answer.page.page });
        return answer.page;
      });
    const patch = (pair, progress) =>
      setData((before) => ({ ...before, progress, page: { ...before.page, pairs: before.page.pairs.map((row) => (row.pair_id === pair.pair_id ? pair : row)) } }));

    const step = async (by, undecidedOnly) => {
      const { data, opened, saved } = current.current;
      const rows = data.page.pairs;
      const here = rows.findIndex((row) => opened && row.pair_id === opened.pair.pair_id);
      for (let i = here + by; i >= 0 && i < rows.length; i += by)
        if (!undecidedOnly || !rows[i].decision) return openPair(rows[i].pair_id);
      const filtered = saved.decision && by > 0; // what has been decided leaves the list, and the next move up
      const target = filtered ? data.page.page : data.page.page + by;
      if (target < 0 || target >= data.page.pages) return null;
      const page = await turn({ page: target });
      const next = page && (by > 0 ? page.pairs[0] : page.pairs[page.pairs.length - 1]);
      return next && next.pair_id !== opened.pair.pair_id ? openPair(next.pair_id) : null;
    };
    const decide = async (action) => {
      if (!current.current.opened || !(await ask((call, pair) => call("decide", { ...pair, action })))) return;
      if (action !== "clear" && current.current.saved.advance) await step(1, true);
    };
    const undo = async () => {
      const answer = await guarded(() => call("undo", { key: current.current.data.key }));
      if (!answer) return;
      await turn({});
      if (answer.pair_id) await openPair(answer.pair_id);
    };
    const prompt = (operator, form) => guarded(() => call("prompt", { operator, form }));
    const show = (params) => guarded(() => call("show", params));
    const openDataset = (name) =>
      guarded(async () => {
        const { workspace } = await call("open_dataset", { name });
        if (!workspace) return;
        const address = new URL(window.location.href);
        address.pathname = address.pathname.replace(/datasets\/[^/]+/, `datasets/${encodeURIComponent(name)}`);
        address.search = `?workspace=${encodeURIComponent(workspace)}`;
        window.location.assign(address);
      });

    useEffect(() => {
      load();
      if (root.current) root.current.focus({ preventScroll: true });
    }, [saved.refreshed]);

    // In the modal, the pair of the sample that is open there.
    useEffect(() => {
      if (saved.current && data && data.page) openPair(saved.current);
    }, [saved.current]);

    /** Asks something about the open pair and shows what has become of it; returns the answer. */
    const ask = async (question) => {
      const { data, opened } = current.current;
      const answer = await guarded(() => question(call, { key: data.key, pair_id: opened && opened.pair.pair_id }));
      if (answer && answer.pair) {
        setOpened(answer);
        save({ pair: answer.pair.pair_id });
        patch(answer.pair, answer.progress || data.progress);
      }
      return answer;
    };

    return { root, error, setError, busy, saved, save, data, opened, load, turn, step, decide, undo, openPair, prompt, show, openDataset, ask, call, guarded };
  }

  // ------------------------------------------------------------------------------------------------------------ views

  const MADE_BY = { check_catalogue: "evidence of a catalogue check", create_pairs: "created pairs" };

  /**
   * On a dataset of single images: the datasets of pairs that were made of it, and how to make one.
   * @param {{review: object, makers: any[], facts: (pairs: object) => string[]}} props `makers`: buttons besides that
   *   which creates pairs; `facts`: what to say of the review of a dataset
   */
  function PairHome({ review, makers, facts }) {
    const { derived, start } = review.data;
    const make = [h(Button, { key: "create", cy: "selfsame-create-pairs", label: "Create pairs", icon: "add_link", strong: !derived.length, onClick: () => review.prompt("create_pairs") }), ...makers];
    if (!derived.length) return h("div", { className: "sfs-empty", "data-cy": "selfsame-empty" }, h(Icon, { name: "join_inner" }), h("p", null, start.reason), h("div", { className: "sfs-row sfs-wrap" }, make));
    const card = (pairs) =>
      h(
        "div",
        { key: pairs.name, className: "sfs-card", "data-cy": `selfsame-dataset-${pairs.name}` },
        h("div", { className: "sfs-row" }, h("b", { className: "sfs-grow", title: pairs.name }, pairs.name), h(Button, { cy: `selfsame-open-${pairs.name}`, label: "Open", icon: "open_in_new", onClick: () => review.openDataset(pairs.name) })),
        h("span", { className: "sfs-dim" }, [plural(pairs.pairs, "pair"), MADE_BY[pairs.made_by] || pairs.made_by, pairs.runs.length ? `compared: ${pairs.runs.join(", ")}` : "not compared yet", ...facts(pairs)].join(" · "))
      );
    return h("main", { className: "sfs-stage", "data-cy": "selfsame-home" }, h("div", { className: "sfs-row sfs-wrap" }, h("b", { className: "sfs-grow" }, "Pairs of this dataset's images"), make), derived.map(card));
  }

  /** How far a review is. */
  function Decided({ pairs, done, title }) {
    const share = pairs ? (100 * done) / pairs : 0;
    return h("div", { className: "sfs-progress", "data-cy": "selfsame-progress", title }, h("div", { className: "sfs-bar" }, h("div", { style: { width: `${share}%` } })), h("span", null, `${count(done)} of ${count(pairs)} decided`));
  }

  /** Buttons that lead back to the datasets that the pairs were made of. */
  const originButtons = (review) => review.data.origins.map((name) => h(Button, { key: `origin-${name}`, cy: "selfsame-origin", icon: "arrow_back", label: name, title: `Back to dataset ${name}`, onClick: () => review.openDataset(name) }));

  /** Whether the grid follows, and whether a decision opens the next pair. */
  const pairOptions = (review) => [
    h(Tick, { key: "follow", cy: "selfsame-follow", label: "Grid follows", title: "The grid shows the open pair", value: review.saved.follow, onChange: (follow) => { review.save({ follow }); if (!follow) review.show({}); } }),
    h(Tick, { key: "advance", cy: "selfsame-advance", label: "Go on", title: "After a decision, open the next undecided pair", value: review.saved.advance, onChange: (advance) => review.save({ advance }) }),
  ];

  function PairFilters({ review }) {
    const { saved, data } = review;
    const kinds = Object.entries(data.page.kinds).map(([kind, n]) => [kind, `${KINDS[kind]} (${count(n)})`]);
    const choice = (name, label, options) => h(Choice, { cy: `selfsame-${name}`, label, value: saved[name] || "", options, onChange: (value) => review.turn({ [name]: value, page: 0 }) });
    return h(
      "div",
      { className: "sfs-row sfs-wrap sfs-filters" },
      choice("sort", "Order", [["doubtful", "Most doubtful"], ["highest", "Highest score"], ["lowest", "Lowest score"]]),
      choice("kind", "Verdict", [["", "All"], ...kinds]),
      choice("decision", "Decision", [["", "All"], ["undecided", "Undecided"], ["accept", "Accepted"], ["reject", "Rejected"]])
    );
  }

  /** What is known of the open pair, in a line. */
  function facts(pair, threshold) {
    const figures = [["score", pair.score, 3], ["similarity", pair.similarity, 3], ["consistency", pair.consistency, 2], ["FFA", pair.ffa, 3]];
    return [
      ...figures.filter(([, value]) => value !== null && value !== undefined).map(([name, value, digits]) => `${name} ${fixed(value, digits)}${name === "score" && threshold ? ` of ${fixed(threshold, 3)}` : ""}`),
      pair.label && `labelled ${pair.label === "match" ? "match" : "no match"}`,
      pair.product_verdict && `product: ${pair.product_verdict}`,
      !pair.product && pair.relation,
    ].filter(Boolean).join(" · ");
  }

  /** The open pair: verdict, actions, pictures, table of lines. */
  function PairStage({ review, act, lines }) {
    const { opened, saved, data } = review;
    const [hover, setHover] = useState(null);
    useEffect(() => setHover(null), [opened]);
    const pair = opened.pair;
    const [icon, said] = DECISIONS[pair.decision] || [];
    const button = (letter, action, label, icon, options) => h(Button, { key: letter, cy: `selfsame-action-${action}`, hotkey: letter.toUpperCase(), label, icon, onClick: act[letter], ...options });
    const colour = lines.length ? tones(lines) : null;
    return h(
      "main",
      { className: "sfs-stage", "data-cy": "selfsame-stage" },
      h(
        "div",
        { className: "sfs-row sfs-wrap sfs-head" },
        h("b", { "data-cy": "selfsame-open-pair", "data-id": pair.pair_id, "data-decision": pair.decision || "" }, pair.product || pair.members.map((member) => fileName(member.filepath)).join(" – ")),
        h(Verdict, { pair }),
        said && h("span", { className: `sfs-said-${pair.decision} sfs-row` }, h(Icon, { name: icon }), said),
        h("span", { className: "sfs-grow" }),
        h(Undo, { review })
      ),
      h(
        "div",
        { className: "sfs-row sfs-wrap sfs-actions" },
        button("a", "accept", "Same object", "check", { strong: true, title: "Both images show the same object" }),
        button("r", "reject", "Not the same", "close", { title: "The images show different objects" }),
        button("c", "clear", "Clear", "backspace", { off: !pair.decision, title: "Take the decision on this pair back" }),
        h("span", { className: "sfs-grow" }),
        h(
          "span",
          { className: "sfs-row" },
          h(Tick, { cy: "selfsame-masks", label: "Masks", title: "Dim what the images do not have in common (M)", value: saved.masks, onChange: (masks) => review.save({ masks }) }),
          h(Tick, { cy: "selfsame-show-lines", label: "Lines", title: "Show the strongest pairs of points (L)", value: saved.lines, onChange: (lines) => review.save({ lines }) }),
          h(Choice, { cy: "selfsame-strongest", label: "Strongest", value: saved.strongest, options: [[6, "6"], [12, "12"], [1000, "All"]], onChange: (n) => review.save({ strongest: Number(n) }) })
        )
      ),
      pair.error && h("div", { className: "sfs-error" }, h("span", { className: "sfs-grow" }, pair.error)),
      h(PairPicture, { opened, lines, masked: saved.masks && pair.kind !== "nothing", hover, onHover: setHover, onOpen: (side) => review.show({ sample: side.id, group: side.group }) }),
      h("div", { className: "sfs-row sfs-wrap sfs-dim", "data-cy": "selfsame-facts" }, h("span", null, facts(pair, data.run.threshold)), colour && h("span", { className: "sfs-row" }, `confidence ${fixed(colour.low, 2)}`, h("i", { className: "sfs-scale" }), fixed(colour.high, 2))),
      pair.kind === "nothing" && h("p", { className: "sfs-dim" }, "These images have no region in common."),
      lines.length > 0 && h(LineTable, { opened, lines, hover, onHover: setHover })
    );
  }

  const DEFAULTS = { sort: "doubtful", kind: "", decision: "", masks: true, lines: true, strongest: 12 };

  function MatchingView({ schema }) {
    const review = usePairs(schema.view, DEFAULTS, ["sort", "kind", "decision"]);
    const { data, saved, opened } = review;
    const lines = useMemo(() => (opened && saved.lines ? opened.lines.slice(0, saved.strongest) : []), [opened, saved.lines, saved.strongest]);
    const act = {
      a: () => review.decide("accept"),
      r: () => review.decide("reject"),
      c: () => opened && opened.pair.decision && review.decide("clear"),
      m: () => review.save({ masks: !saved.masks }),
      l: () => review.save({ lines: !saved.lines }),
    };
    const ready = data && data.page;
    const { pairs, accepted, rejected } = (ready && data.progress) || {};
    const head = ready && [
      h(RunChoice, { key: "run", review }),
      h(Decided, { key: "progress", pairs, done: accepted + rejected, title: `${count(accepted)} accepted, ${count(rejected)} rejected` }),
      h("span", { key: "gap", className: "sfs-grow" }),
      ...pairOptions(review),
      h(Button, { key: "train", cy: "selfsame-train", label: "Train", icon: "model_training", title: "Train a matcher on these decisions", onClick: () => review.prompt("train_matcher") }),
      h(Button, { key: "again", cy: "selfsame-match-again", label: "Match again", icon: "autorenew", title: "Another threshold, matcher or key", onClick: () => review.prompt("match_objects", { key: data.key }) }),
      ...originButtons(review),
    ];
    const describe = (pair) => [
      pair.product && h("b", { key: "product", className: "sfs-name" }, pair.product),
      h(Verdict, { key: "verdict", pair }),
      h("span", { key: "gap", className: "sfs-grow" }),
      pair.score !== null && h("span", { key: "score" }, fixed(pair.score, 2)),
    ];
    const left = ready && [h(PairFilters, { key: "filters", review }), h(PairList, { key: "list", review, decisions: DECISIONS, describe })];
    const right = ready && opened && h(PairStage, { review, act, lines });
    const keys = [["A", "same object"], ["R", "not the same"], ["C", "clear"], ["U", "undo"], ["J / P", "next, previous"], ["M", "masks"], ["L", "lines"]];
    const check = h(Button, { key: "check", cy: "selfsame-check-catalogue", label: "Check catalogue", icon: "inventory", title: "Does what was sent in for a product show that product?", onClick: () => review.prompt("check_catalogue") });
    const facts = (one) => [`${count(one.accepted)} accepted`, `${count(one.rejected)} rejected`];
    const start = data && data.derived && h(PairHome, { review, makers: [check], facts });
    return h(Frame, { review, onKeyDown: keyHandler(review, act), head, left, right, keys: ready ? keys : null, name: "matching", start });
  }

  views.Matching = MatchingView;
  Object.assign(window.__selfsame__, { usePairs, PairHome, PairList, Decided, originButtons, pairOptions, useWidth, placed });
})();
