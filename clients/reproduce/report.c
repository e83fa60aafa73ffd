#include "clients/reproduce/report.h"

#include "clients/cli/value.h"
#include "clients/reproduce/figure.h"
#include "clients/reproduce/html.h"
#include "clients/reproduce/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c1e21;--soft:#5c636b;--paper:#fff;--panel:#f5f6f8;"
    "--rule:#d9dde2;--good:#1a7f37;--bad:#b42318;--open:#8a6100;"
    "--s0:#2563b8;--s1:#c2570c;--s2:#1b7f5c;--s3:#a02c7d;--s4:#7a6a00;--s5:#5b4bc4;--s6:#b3261e;"
    "--s7:#4d5a66}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e7e9ec;--soft:#a3abb5;--paper:#15181c;"
    "--panel:#1e2228;--rule:#363c45;--good:#5cc77b;--bad:#ff8a80;--open:#e6b84c;"
    "--s0:#7fb2ff;--s1:#ffa35c;--s2:#5fd3a6;--s3:#f08fd0;--s4:#d9c64a;--s5:#b3a6ff;--s6:#ff8a80;"
    "--s7:#b4c0cc}}\n"
    "body{margin:0 auto;padding:24px 20px 64px;max-width:960px;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,sans-serif}\n"
    "h1{margin:0 0 4px}h2{margin:56px 0 4px;padding-top:16px;border-top:2px solid var(--rule)}"
    "h3{margin:32px 0 8px}p{margin:8px 0}a{color:var(--s0)}\n"
    ".soft,.facts{color:var(--soft)}.facts,small,details{font-size:14px}\n"
    "blockquote{margin:8px 0;padding:2px 14px;border-left:3px solid var(--s0)}\n"
    ".judged ul{margin:4px 0;padding-left:22px;font-size:15px}.judged{padding:8px "
    "14px;background:var(--panel);border-radius:6px}\n"
    ".verdict{font-weight:600}.holds{color:var(--good)}.fails{color:var(--bad)}"
    ".open{color:var(--open)}\n"
    "table{border-collapse:collapse;font-size:14px}th,td{padding:4px 10px 4px 0;text-align:left;"
    "vertical-align:top;border-bottom:1px solid var(--rule)}td.n{text-align:right;"
    "font-variant-numeric:tabular-nums}\n"
    ".wide{overflow-x:auto}pre{padding:10px;background:var(--panel);border-radius:6px;"
    "overflow-x:auto;font-size:13px}\n"
    "svg{max-width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--ink)}"
    ".axis{stroke:var(--soft)}.grid{stroke:var(--rule);stroke-width:.7}"
    ".line{fill:none;stroke:var(--c);stroke-width:1.8}.mark,.bar{fill:var(--c)}\n"
    ".s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}"
    ".s5{--c:var(--s5)}.s6{--c:var(--s6)}.s7{--c:var(--s7)}\n";

const json_t *report_rows(const struct report_study *study, const json_t *figure) {
    const char *source = value_string(figure, "rows");
    return !strcmp(source, "epochs")      ? study->epochs
           : !strcmp(source, "histogram") ? study->bins
                                          : study->experiments;
}

size_t report_failures(const struct report_study *study) {
    size_t i, n = 0;
    const json_t *row;
    json_array_foreach(study->experiments, i, row) {
        n += strcmp(value_string(row, "state"), "succeeded") != 0;
    }
    return n;
}

static const json_t *figures_of(const struct report_study *study) {
    return json_object_get(study->description, "figures");
}

static void add_json(struct buf *html, const char *summary, const json_t *json) {
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    html_add(html, "<details><summary>{}</summary><pre>{}</pre></details>\n", summary,
             text ? text : "");
    free(text);
}

static void add_verdict(struct buf *html, enum verdict verdict) {
    static const char *const classes[] = {
        [REPORTED] = "soft", [HOLDS] = "holds", [DOES_NOT_HOLD] = "fails", [NOT_DECIDED] = "open"};
    html_add(html, "<span class=\"verdict {}\">{}</span>", classes[verdict], verdict_text(verdict));
}

/* ---- The summary ---- */

/* Of the first experiment that has a result: the points of a study share it. */
static const char *protocol_of(const struct report_study *study) {
    size_t i;
    const json_t *row;
    json_array_foreach(study->experiments, i, row) {
        if (*value_string(row, "result.protocol"))
            return value_string(row, "result.protocol");
    }
    return "";
}

static void add_summary_row(struct buf *html, const struct report_study *study, const char *claim,
                            enum verdict verdict, const char *finding) {
    html_add(html, "<tr><td><a href=\"#{}\">{}</a></td><td>{}</td><td>", study->id, study->id,
             claim);
    if (*study->trouble)
        buf_add(html, "<span class=\"verdict open\">did not run</span>");
    else
        add_verdict(html, verdict);
    html_add(html, "</td><td>{}</td><td>{}</td></tr>\n", protocol_of(study), finding);
}

/* One row for each claim that is judged; a study without one has a row all the same. */
static void add_summary(struct buf *html, const struct report *report) {
    buf_add(html, "<div class=\"wide\"><table><tr><th>experiment</th><th>claim</th><th>verdict</th>"
                  "<th>protocol</th><th>measured</th></tr>\n");
    for (size_t s = 0; s < report->n; s++) {
        const struct report_study *study = &report->studies[s];
        size_t i, judged = 0;
        const json_t *figure;
        json_array_foreach(figures_of(study), i, figure) {
            const struct judgement *judgement = &study->judgements[i];
            if (*study->trouble || judgement->verdict == REPORTED)
                continue;
            add_summary_row(html, study, value_string(figure, "title"), judgement->verdict,
                            judgement->finding.data ? judgement->finding.data : "");
            judged++;
        }
        if (!judged)
            add_summary_row(html, study, value_string(study->description, "title"), REPORTED,
                            study->trouble);
    }
    buf_add(html, "</table></div>\n");
}

/* ---- A study ---- */

/* Adds "label: a, b, c" with every value that the path has in the rows; nothing where none has. */
static void add_values(struct buf *html, const char *label, const json_t *rows, const char *path) {
    json_t *seen = json_object();
    size_t i;
    const json_t *row;
    const char *between = "";
    json_array_foreach(rows, i, row) {
        const json_t *value = value_at(row, path);
        char number[LABEL_ROOM];
        const char *text = json_is_string(value)   ? json_string_value(value)
                           : json_is_number(value) ? figure_number(number, json_number_value(value))
                                                   : NULL;
        if (!text || json_object_get(seen, text) || json_object_set_new(seen, text, json_true()))
            continue;
        if (!*between)
            html_add(html, " {}: ", label);
        html_add(html, "{}{}", between, text);
        between = ", ";
    }
    buf_add(html, *between ? "." : "");
    json_decref(seen);
}

static void add_protocol(struct buf *html, const struct report_study *study) {
    const json_t *rows = study->experiments;
    buf_addf(html, "<p class=\"facts\">%zu experiment%s.", json_array_size(rows),
             json_array_size(rows) == 1 ? "" : "s");
    add_values(html, "Protocol", rows, "result.protocol");
    add_values(html, "Data", rows, "spec.dataset.name");
    add_values(html, "Data", rows, "spec.dataset.generator");
    add_values(html, "Training samples at most", rows, "spec.dataset.train_limit");
    add_values(html, "Model", rows, "spec.model.kind");
    add_values(html, "Hidden units", rows, "spec.model.hidden.0");
    add_values(html, "Epochs", rows, "spec.training.epochs");
    add_values(html, "Seed", rows, "spec.training.seed");
    buf_add(html, "</p>\n");
}

static void add_failures(struct buf *html, const struct report_study *study) {
    size_t i;
    const json_t *row;
    if (!report_failures(study))
        return;
    buf_addf(html,
             "<p class=\"fails\">%zu of %zu experiments have no result; the figures and verdicts "
             "go without them:</p><ul>\n",
             report_failures(study), json_array_size(study->experiments));
    json_array_foreach(study->experiments, i, row) {
        const char *state = value_string(row, "state"), *why = value_string(row, "error.detail");
        if (strcmp(state, "succeeded"))
            html_add(html, "<li>{} <small>{}</small>: {}{}{}</li>\n", value_string(row, "name"),
                     value_string(row, "id"), state, *why ? ": " : "", why);
    }
    buf_add(html, "</ul>\n");
}

static void add_numbers(struct buf *html, const struct figure *figure) {
    char number[LABEL_ROOM];
    buf_add(html, "<details><summary>Numbers</summary><div class=\"wide\"><table><tr>");
    if (figure->n > 1)
        buf_add(html, "<th>series</th>");
    if (!figure->bars)
        html_add(html, "<th>{}</th>", figure->x.label);
    html_add(html, "<th>{}</th><th>± sd</th><th>runs</th></tr>\n", figure->y.label);
    for (size_t i = 0; i < figure->n; i++)
        for (size_t k = 0; k < figure->series[i].n; k++) {
            const struct point *point = &figure->series[i].points[k];
            buf_add(html, "<tr>");
            if (figure->n > 1)
                html_add(html, "<td>{}</td>", figure->series[i].label);
            if (!figure->bars)
                html_add(html, "<td class=\"n\">{}</td>", figure_number(number, point->x));
            html_add(html, "<td class=\"n\">{}</td>", figure_number(number, point->y));
            html_add(html, "<td class=\"n\">{}</td>",
                     point->n > 1 ? figure_number(number, point->sd) : "");
            buf_addf(html, "<td class=\"n\">%zu</td></tr>\n", point->n);
        }
    buf_add(html, "</table></div></details>\n");
}

static void add_picture(struct buf *html, const struct report_study *study,
                        const json_t *description) {
    struct figure figure;
    if (figure_build(&figure, description, report_rows(study, description), NULL))
        html->failed = true;
    plot_svg(html, &figure, value_string(description, "title"));
    if (figure.n)
        add_numbers(html, &figure);
    figure_release(&figure);
}

/* A finding on several series has a part for each, between semicolons. */
static void add_finding(struct buf *html, const char *finding) {
    const char *end;
    buf_add(html, "<ul>");
    for (; (end = strstr(finding, "; ")); finding = end + 2) {
        char *part = strndup(finding, (size_t)(end - finding));
        html_add(html, "<li>{}</li>", part ? part : "");
        free(part);
    }
    html_add(html, "<li>{}</li></ul>", finding);
}

static void add_judgement(struct buf *html, const struct judgement *judgement) {
    buf_add(html, "<div class=\"judged\"><p>The claim ");
    buf_add(html, judgement->verdict == NOT_DECIDED ? "is " : "");
    add_verdict(html, judgement->verdict);
    buf_add(html, ".</p>");
    add_finding(html, judgement->finding.data ? judgement->finding.data : "");
    html_add(html, "<p class=\"soft\"><small>Rule, fixed beforehand: {}</small></p></div>\n",
             judgement->rule.data ? judgement->rule.data : "");
}

static void add_figure(struct buf *html, const struct report_study *study, size_t i) {
    const json_t *description = json_array_get(figures_of(study), i);
    const struct judgement *judgement = &study->judgements[i];
    const char *claim = value_string(description, "claim");
    const char *remark = value_string(description, "remark");
    html_add(html, "<h3>{}</h3>\n", value_string(description, "title"));
    if (*claim)
        html_add(html, "<blockquote><p>{}</p></blockquote>\n", claim);
    if (*remark)
        html_add(html, "<p>{}</p>\n", remark);
    if (strcmp(value_string(description, "plot"), "none"))
        add_picture(html, study, description);
    if (judgement->verdict != REPORTED)
        add_judgement(html, judgement);
}

static void add_study(struct buf *html, const struct report *report,
                      const struct report_study *study) {
    const char *notes = value_string(study->document, "notes");
    size_t i;
    const json_t *figure;
    html_add(html, "<section id=\"{}\"><h2>{} <small class=\"soft\">{}</small></h2>\n", study->id,
             value_string(study->description, "title"), study->id);
    if (*notes)
        html_add(html, "<p>{}</p>\n", notes);
    if (*study->trouble)
        html_add(html, "<p class=\"open\">Did not run: {}</p>\n", study->trouble);
    else
        add_protocol(html, study);
    add_failures(html, study);
    if (!*study->trouble)
        json_array_foreach(figures_of(study), i, figure) {
            add_figure(html, study, i);
        }
    if (study->reductions)
        add_json(html, "What was reduced for the quick run (a merge patch, RFC 7396)",
                 study->reductions);
    add_json(html, "The document as it was posted", study->document);
    if (*study->handle)
        html_add(html,
                 "<p class=\"facts\">On the daemon: <a href=\"{}/v1/{}/{}\">{}/v1/{}/{}</a></p>\n",
                 report->url, study->sweep ? "sweeps" : "experiments", study->handle, report->url,
                 study->sweep ? "sweeps" : "experiments", study->handle);
    buf_add(html, "</section>\n");
}

/* ---- The page ---- */

static void add_head(struct buf *html, const struct report *report) {
    buf_add(html, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n"
                  "<title>OVR, reproduced</title>\n<style>\n");
    buf_add(html, style);
    buf_add(html, "</style></head><body>\n<h1>OVR, reproduced</h1>\n");
    buf_add(html, "<p class=\"soft\">The experiments of “Only sparsity based loss function for "
                  "learning representations” (arXiv 1903.02893), run again. Each claim was given a "
                  "rule before anybody looked; the rule decides, whatever comes out.</p>\n");
    html_add(html, "<p class=\"facts\">{}, {} run, ovrd {} at {}.", report->date,
             report->quick ? "quick" : "full", value_string(report->version, "version"),
             report->url);
    if (report->quick)
        buf_add(html, " A quick run has fewer points, samples, units and epochs than the paper: "
                      "its accuracies are lower, and small differences mean little.");
    buf_add(html, "</p>\n");
}

void report_html(struct buf *html, const struct report *report) {
    add_head(html, report);
    add_summary(html, report);
    for (size_t i = 0; i < report->n; i++)
        add_study(html, report, &report->studies[i]);
    buf_add(html, "</body></html>\n");
}
