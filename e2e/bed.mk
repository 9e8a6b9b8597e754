# The bed's verbs, included by the Makefile.
.PHONY: run stop kubectl bench bed status

CLUSTER ?= lighter
NODES ?= 1
BED := $(TARGET_DIR)/$(HOST)/$(PROFILE)/bed

bed:
	@cargo build --quiet --profile $(PROFILE) -p e2e --bin bed

run: ## A real control plane, one Lighter node, the demo on it (NODES=2, CLUSTER=name)
	@start=$$SECONDS; cargo build --profile $(PROFILE) -p lighter -p e2e --bin lighter --bin bed \
	    && echo "built lighter and the bed in $$((SECONDS - start)) s" \
	    && $(BED) up --again --name $(CLUSTER) --nodes $(NODES) --lighter $(LIGHTER) \
	    && $(BED) demo --name $(CLUSTER)

stop: bed ## End the cluster of make run; nothing of it stays
	@$(BED) down --name $(CLUSTER)

status: bed ## What is up
	@$(BED) status

kubectl: bed ## kubectl in the cluster of make run (ARGS="get pods -A")
	@$(BED) kubectl --name $(CLUSTER) -- $(ARGS)

bench: ## Lighter beside kubelet + containerd + runc, in one run: table and JSON
	@cargo build --profile $(PROFILE) -p lighter -p e2e --bin lighter --bin bed
	@$(BED) bench --lighter $(LIGHTER)
